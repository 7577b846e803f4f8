"""The body of a journal's first entry: what was asked for, as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import attrs
import msgspec
from cattrs import BaseValidationError
from cattrs.preconf.msgspec import MsgspecJsonConverter, make_converter

from audioext.errors import StoreError
from audioext.models.record import Asked
from audioext.models.requests import AddInstrumental, Extend, Operation, Request

FORMAT = 1
_DAMAGE = (BaseValidationError, msgspec.MsgspecError, RecursionError, ValueError, TypeError, KeyError, AttributeError)


def dump_asked(asked: Asked) -> bytes:
    """Return *asked* as JSON; what has its default is left out."""
    return _converter().dumps({"format": FORMAT, **_converter().unstructure(asked)})


def load_asked(body: bytes) -> Asked:
    """Return what `dump_asked` wrote.

    Raises:
        StoreError: it is something else, or was written by a later release.
    """
    try:
        value = msgspec.json.decode(body)
        if value["format"] != FORMAT:
            message = f"the journal has format {value['format']}, this release reads {FORMAT}: update audioext"
            raise StoreError(message)
        return _converter().structure(value, Asked)
    except _DAMAGE as error:
        message = f"the store holds a damaged journal: {error}"
        raise StoreError(message) from error


@cache
def _converter() -> MsgspecJsonConverter:
    converter = make_converter(omit_if_default=True)
    converter.register_unstructure_hook(Request, _dump_request)
    # meta is the user's own JSON and is kept as it is
    converter.register_structure_hook_func(lambda type_: type_ == Mapping[str, object], lambda value, _: value)
    converter.register_structure_hook(Request, lambda value, _: _load_request(value))
    return converter


def _dump_request(request: Request) -> dict[str, object]:
    fields = request.given()
    if request.file is not None:
        # A name may be bytes that are no UTF-8, which JSON cannot hold: it is kept a character for each byte.
        fields["file"] = str(request.file).encode(errors="surrogatepass").decode("latin-1")
    return {"operation": str(request.operation), **fields}


def _load_request(stored: dict[str, object]) -> Request:
    # A stored request was valid when it was made; a later release's stricter rules must not lose its job.
    kind = AddInstrumental if stored["operation"] == Operation.ADD_INSTRUMENTAL else Extend
    known = {attribute.name for attribute in attrs.fields(kind)}
    fields = {name: value for name, value in stored.items() if name in known}
    if isinstance(file := fields.get("file"), str):
        fields["file"] = file.encode("latin-1").decode(errors="surrogatepass")
    return kind.draft(**fields)
