"""Conversion of `Asked`, the body of a journal's first entry, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import msgspec

from audioext.errors import UnreadableError
from audioext.models.record import Asked
from audioext.models.requests import AddInstrumental, Extend, Operation, Request

FORMAT = 1


def dump_asked(asked: Asked) -> bytes:
    """Return *asked* as JSON without the fields that have their default."""
    return msgspec.json.encode({"format": FORMAT, **_converter().unstructure(asked)})


def load_asked(body: bytes) -> Asked:
    """Return the `Asked` that `dump_asked` wrote to *body*.

    Raises:
        UnreadableError: *body* is something else, or was written by a later release.
    """
    try:
        value = msgspec.json.decode(body)
        if value["format"] != FORMAT:
            message = f"its journal has format {value['format']!r:.20}, this release reads {FORMAT}: update audioext"
            raise UnreadableError(message)
        asked: Asked = _structure()(value, Asked)
    except UnreadableError:
        raise
    except Exception as error:  # cattrs raises exception groups of any kind, and all mean an unreadable journal
        raise UnreadableError(f"its journal is damaged: {type(error).__name__}: {error!s:.200}") from error
    return asked


@cache
def _converter() -> Any:  # noqa: ANN401 - cattrs' converter, which is imported only below
    from cattrs.preconf.msgspec import make_converter  # noqa: PLC0415 - a slow import that not all programs need

    converter = make_converter(omit_if_default=True)
    converter.register_unstructure_hook(Request, _dump_request)
    # meta is the user's own JSON, and stays as it is.
    converter.register_structure_hook_func(lambda type_: type_ == Mapping[str, object], lambda value, _: value)
    converter.register_structure_hook(Request, lambda value, _: _load_request(value))
    return converter


@cache
def _structure() -> Any:  # noqa: ANN401 - cattrs' own function, which is looked up once
    return _converter().get_structure_hook(Asked)


def _dump_request(request: Request) -> dict[str, object]:
    fields = request.given()
    if isinstance(path := fields.get("file"), Path):
        # A file name may not be UTF-8, which JSON requires, so it is stored with one character for each byte.
        fields["file"] = str(path).encode(errors="surrogatepass").decode("latin-1")
    return {"operation": str(request.operation), **fields}


def _load_request(stored: dict[str, object]) -> Request:
    # A stored request was valid when it was made: stricter rules of a later release must not lose its job.
    kind = AddInstrumental if stored["operation"] == Operation.ADD_INSTRUMENTAL else Extend
    fields = {name: value for name, value in stored.items() if name in _names(kind)}
    if isinstance(file := fields.get("file"), str):
        fields["file"] = file.encode("latin-1").decode(errors="surrogatepass")
    return kind.draft(**fields)


@cache
def _names(kind: type[Request]) -> frozenset[str]:
    return frozenset(attrs.fields_dict(kind))
