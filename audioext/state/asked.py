"""The body of a journal's first entry: what was asked for, as JSON and back."""

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
    """Return *asked* as JSON; what has its default is left out."""
    return msgspec.json.encode({"format": FORMAT, **_converter().unstructure(asked)})


def load_asked(body: bytes) -> Asked:
    """Return what `dump_asked` wrote.

    Raises:
        UnreadableError: it is something else, or was written by a later release.
    """
    try:
        value = msgspec.json.decode(body)
        if value["format"] != FORMAT:
            message = f"its journal has format {value['format']!r:.20}, this release reads {FORMAT}: update audioext"
            raise UnreadableError(message)
        asked: Asked = _structure()(value, Asked)
    except UnreadableError:
        raise
    except Exception as error:  # cattrs raises groups of any kind, and whatever it is, the journal cannot be read
        raise UnreadableError(f"its journal is damaged: {type(error).__name__}: {error!s:.200}") from error
    return asked


@cache
def _converter() -> Any:  # noqa: ANN401 - cattrs' converter, which is not loaded before
    from cattrs.preconf.msgspec import make_converter  # noqa: PLC0415 - it takes a while, and not all need it

    converter = make_converter(omit_if_default=True)
    converter.register_unstructure_hook(Request, _dump_request)
    # meta is the user's own JSON and is kept as it is
    converter.register_structure_hook_func(lambda type_: type_ == Mapping[str, object], lambda value, _: value)
    converter.register_structure_hook(Request, lambda value, _: _load_request(value))
    return converter


@cache
def _structure() -> Any:  # noqa: ANN401 - cattrs' own function, looked up once
    return _converter().get_structure_hook(Asked)


def _dump_request(request: Request) -> dict[str, object]:
    fields = request.given()
    if isinstance(path := fields.get("file"), Path):
        # A name may be bytes that are no UTF-8, which JSON cannot hold: it is kept a character for each byte.
        fields["file"] = str(path).encode(errors="surrogatepass").decode("latin-1")
    return {"operation": str(request.operation), **fields}


def _load_request(stored: dict[str, object]) -> Request:
    # A stored request was valid when it was made; a later release's stricter rules must not lose its job.
    kind = AddInstrumental if stored["operation"] == Operation.ADD_INSTRUMENTAL else Extend
    fields = {name: value for name, value in stored.items() if name in _names(kind)}
    if isinstance(file := fields.get("file"), str):
        fields["file"] = file.encode("latin-1").decode(errors="surrogatepass")
    return kind.draft(**fields)


@cache
def _names(kind: type[Request]) -> frozenset[str]:
    return frozenset(attrs.fields_dict(kind))
