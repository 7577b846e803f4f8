"""Reads files that clients send; the upload hosts of kie.ai and sunoapi.org, whose paths lie under the same bases here.

https://docs.kie.ai/file-upload-api/quickstart and https://docs.sunoapi.org/file-upload-api/quickstart.md
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath

from aiohttp import BodyPartReader, web
from attrs import define, frozen
from yarl import URL

from audioext.sandbox.apis._fields import is_address
from audioext.sandbox.apis._http import Handler, check_key, json_response, read_json_object
from audioext.sandbox.files import content_type
from audioext.sandbox.models import Cause, Refusal
from audioext.sandbox.protocol import ApiFacts
from audioext.sandbox.state import State

CHUNK_BYTES = 64 * 1024
MOST_TEXT_BYTES = 64 * 1024
# Upload errors carry their code as HTTP status too.
STATUSES = {Cause.KEY: 401, Cause.METHOD: 405, Cause.SOURCE: 500}
INVALID_STATUS = 400


@frozen
class ReceivedFile:
    """A file as it was stored: its key, the name that came with it, and its size in bytes."""

    key: str
    name: str
    size: int


@frozen
class Form:
    """A form that was read."""

    texts: Mapping[str, str]
    file: ReceivedFile | None


async def read_form(request: web.Request, state: State, *, file_name: str, provider: str) -> Form:
    """Read a multipart form, in constant memory; parts come in any order, the first file of that name is kept.

    Raises:
        Refusal: The body is no form, or a file is too big.
    """
    texts: dict[str, str] = {}
    received: ReceivedFile | None = None
    async for part in _parts(request):
        if part.name == file_name and received is None:
            key = _fresh_key(provider)
            size = await state.files.add_stream(key, _chunks(part), limit_bytes=state.settings.max_upload_bytes)
            received = ReceivedFile(key, part.filename or "file", size)
        elif part.name is not None:
            texts[part.name] = (await part.read_chunk(MOST_TEXT_BYTES)).decode("utf-8", "replace")
    return Form(texts, received)


@define(eq=False)
class UploadHost:
    """The three uploads of one account: a form, Base64 inside JSON, and an address to fetch."""

    state: State
    facts: ApiFacts

    def add_routes(self, app: web.Application) -> None:
        """Add them for all methods: a wrong one has an answer of its own."""
        app.router.add_route("*", "/api/file-stream-upload", self._answering(self._stream))
        app.router.add_route("*", "/api/file-base64-upload", self._answering(self._base64))
        app.router.add_route("*", "/api/file-url-upload", self._answering(self._url))

    def _answering(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if request.method != "POST":
                    raise Refusal(Cause.METHOD, f"{request.method} is not allowed")
                check_key(request, self.facts, self.state.settings)
                return await handler(request)
            except Refusal as refusal:
                code = STATUSES.get(refusal.cause, INVALID_STATUS)
                return json_response({"success": False, "code": code, "msg": refusal.message}, status=code)

        return handle

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        form = await read_form(request, self.state, file_name="file", provider=self.facts.provider)
        if form.file is None:
            raise Refusal(Cause.MISSING, "file is required")
        return self._keep(form.file, form.texts)

    async def _base64(self, request: web.Request) -> web.StreamResponse:
        texts = await _texts(request)
        data, suffix = _decode_base64(texts.get("base64Data", ""))
        return self._keep(self._add(data, f"{uuid.uuid4()}{suffix}"), texts)

    async def _url(self, request: web.Request) -> web.StreamResponse:
        texts = await _texts(request)
        address = texts.get("fileUrl")
        if not is_address(address):
            raise Refusal(Cause.INVALID, "fileUrl must be an http(s) URL")
        data = await self.state.files.read(await self.state.library.fetch(address))
        return self._keep(self._add(data, URL(address).name or str(uuid.uuid4())), texts)

    def _add(self, data: bytes, name: str) -> ReceivedFile:
        key = _fresh_key(self.facts.provider)
        self.state.files.add(key, data)
        return ReceivedFile(key, name, len(data))

    def _keep(self, file: ReceivedFile, texts: Mapping[str, str]) -> web.Response:
        """Keep a file where the client wants it; answer as was seen live: `downloadUrl` is what a client uses."""
        if not texts.get("uploadPath"):
            raise Refusal(Cause.MISSING, "uploadPath is required")
        name = PurePosixPath(texts.get("fileName") or file.name).name
        # Nothing climbs out of the folder.
        parts = [part for part in f"{texts['uploadPath']}/{name}".split("/") if part not in {"", ".", ".."}]
        path = "/".join(parts)
        key = f"uploads/{self.facts.provider}/{path}"
        self.state.files.rename(file.key, key)
        data = {
            "fileName": name,
            "filePath": path,
            "downloadUrl": self.state.files.url(key),
            "fileSize": file.size,
            "mimeType": content_type(path),
            "uploadedAt": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})


def _fresh_key(provider: str) -> str:
    return f"uploads/{provider}/{uuid.uuid4()}"


async def _texts(request: web.Request) -> Mapping[str, str]:
    body = await read_json_object(request)
    return {name: value for name, value in body.items() if isinstance(value, str)}


def _decode_base64(text: str) -> tuple[bytes, str]:
    """Decode bare Base64 or a data URL, and return the bytes and a suffix that fits the type."""
    head, comma, tail = text.partition(",")
    try:
        decoded = base64.b64decode(tail if comma else text, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        raise Refusal(Cause.INVALID, "base64Data must be Base64 of at least one byte")
    kind = head.removeprefix("data:").partition(";")[0] if comma else ""
    return decoded, mimetypes.guess_extension(kind) or ".bin"


async def _parts(request: web.Request) -> AsyncIterator[BodyPartReader]:
    if request.content_type != "multipart/form-data":
        raise Refusal(Cause.BODY, "Content-Type must be multipart/form-data")
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                yield part
    except ValueError as error:
        raise Refusal(Cause.BODY, "The body is not valid multipart/form-data") from error


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(CHUNK_BYTES):
        yield chunk
