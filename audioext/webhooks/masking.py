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
        record.msg = _masked(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_masked(value) for value in record.args)
        elif isinstance(record.args, Mapping):
            record.args = _MaskedAtoms(record.args)  # type: ignore[assignment]  # `%` only calls `__getitem__` and `__repr__`
        return True


@frozen(repr=False)
class _MaskedAtoms:
    """The named atoms of an access log line, masked on access."""

    atoms: Mapping[str, object]

    def __getitem__(self, name: str) -> object:
        return _masked(self.atoms[name])

    def __repr__(self) -> str:
        """Return the masked text of all atoms, for a message that shows them as a whole."""
        return mask(repr(self.atoms))


def _masked(value: object) -> object:
    """Return *value*, or its text without the tag that is in it: a URL object, or bytes, can hold one as well."""
    if value is None or isinstance(value, (int, float)):
        return value
    try:
        text = repr(value) if isinstance(value, bytes) else str(value)
    except Exception:  # noqa: BLE001 - logging reports it when it writes the record
        return value
    masked = mask(text)
    return value if masked == text else masked
