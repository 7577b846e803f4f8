"""Logs without secrets: the callback paths in the access logs of any server, with their tags hidden."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from attrs import frozen

from audioext.http.urls import mask


class MaskingFilter(logging.Filter):
    """Hides the tags in what a server logs: `logging.getLogger("uvicorn.access").addFilter(ax.MaskingFilter())`.

    For `gunicorn.access`, `hypercorn.access` and `granian.access` as well. It keeps every record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the texts of a record, whose arguments keep their shape, since formatters take them apart."""
        if isinstance(record.msg, str):
            record.msg = mask(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_masked(value) for value in record.args)
        elif isinstance(record.args, Mapping):
            record.args = _MaskedAtoms(record.args)  # type: ignore[assignment]  # `%` asks for no more than its items
        return True


@frozen
class _MaskedAtoms:
    """The named parts of an access log's line, masked when they are asked for."""

    atoms: Mapping[str, object]

    def __getitem__(self, name: str) -> object:
        return _masked(self.atoms[name])


def _masked(value: object) -> object:
    return mask(value) if isinstance(value, str) else value
