"""Reads files that clients send: multipart forms, in constant memory, and Base64."""

import base64
import binascii
import mimetypes
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

from aiohttp import BodyPartReader, web
from attrs import frozen

from .studio import Studio
from .tasks import Refusal, Trouble

__all__ = ["Form", "ReceivedFile", "decode_base64", "fresh_key", "read_form"]

CHUNK_BYTES = 64 * 1024
MOST_TEXT_BYTES = 64 * 1024


@frozen
class ReceivedFile:
    """A file part, as it was stored."""

    key: str
    name: str
    size: int


@frozen
class Form:
    """A form that was read."""

    texts: Mapping[str, str]
    file: ReceivedFile | None


def fresh_key(provider: str) -> str:
    """Return a key for a file that has none of its own yet."""
    return f"uploads/{provider}/{uuid.uuid4()}"


async def read_form(request: web.Request, studio: Studio, *, file_names: Sequence[str], provider: str) -> Form:
    """Read a multipart form; parts come in any order, the first file of such a name is kept.

    Raises:
        Refusal: The body is no form, or a file is too big.
    """
    texts: dict[str, str] = {}
    received: ReceivedFile | None = None
    async for part in _parts(request):
        if part.name in file_names and received is None:
            key = fresh_key(provider)
            size = await studio.files.add_stream(key, _chunks(part), limit_bytes=studio.settings.max_upload_bytes)
            received = ReceivedFile(key, part.filename or "file", size)
        elif part.name is not None:
            texts[part.name] = (await part.read_chunk(MOST_TEXT_BYTES)).decode("utf-8", "replace")
    return Form(texts, received)


def decode_base64(text: str, *, name: str) -> tuple[bytes, str]:
    """Decode bare Base64 or a data URL, and return the bytes and a suffix that fits the type.

    Raises:
        Refusal: It is neither, or empty.
    """
    head, comma, tail = text.partition(",")
    try:
        decoded = base64.b64decode(tail if comma else text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(Trouble.INVALID, f"{name} is not valid Base64", names=[name]) from None
    if not decoded:
        raise Refusal(Trouble.MISSING, f"{name} is required", names=[name])
    kind = head.removeprefix("data:").partition(";")[0] if comma else ""
    return decoded, mimetypes.guess_extension(kind) or ".bin"


async def _parts(request: web.Request) -> AsyncIterator[BodyPartReader]:
    if request.content_type != "multipart/form-data":
        raise Refusal(Trouble.BODY, "Content-Type must be multipart/form-data")
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                yield part
    except ValueError as error:
        raise Refusal(Trouble.BODY, "The body is not valid multipart/form-data") from error


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(CHUNK_BYTES):
        yield chunk
