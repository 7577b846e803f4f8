"""A logging filter that hides the secret tags of callback paths in any server's access log."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from attrs import frozen

from audioext.http.urls import mask


class MaskingFilter(logging.Filter):
    """Hides tags in a server's log: `logging.getLogger("uvicorn.access").addFilter(ax.MaskingFilter())`.

    It also works for `gunicorn.access`, `hypercorn.access` and `granian.access`, and drops no record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message and the arguments of a record, which keep their shape, since formatters unpack them."""
        if isinstance(record.msg, str):
            record.msg = mask(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_masked(value) for value in record.args)
        elif isinstance(record.args, Mapping):
            record.args = _MaskedAtoms(record.args)  # type: ignore[assignment]  # `%` only calls `__getitem__`
        return True


@frozen
class _MaskedAtoms:
    """The named atoms of an access log line, masked on access."""

    atoms: Mapping[str, object]

    def __getitem__(self, name: str) -> object:
        return _masked(self.atoms[name])


def _masked(value: object) -> object:
    return mask(value) if isinstance(value, str) else value
