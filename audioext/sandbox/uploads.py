"""The upload hosts of kie.ai and sunoapi.org, whose paths lie under the same bases here.

https://docs.kie.ai/file-upload-api/quickstart, https://docs.sunoapi.org/file-upload-api/quickstart.md (sheet 9).
"""

import base64
import binascii
import mimetypes
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath

from aiohttp import BodyPartReader, web
from attrs import define
from yarl import URL

from ._bodies import check_bearer, json_response, read_json_object
from ._fields import is_address
from .desk import Handler
from .studio import Studio
from .tasks import Refusal, Trouble

__all__ = ["add_routes"]

CHUNK_BYTES = 64 * 1024
MOST_TEXT_BYTES = 4096
#: Upload errors carry their code as HTTP status too (K11).
STATUSES = {
    Trouble.KEY: 401,
    Trouble.METHOD: 405,
    Trouble.SOURCE: 500,
    Trouble.TOO_BIG: 400,
}


def add_routes(app: web.Application, studio: Studio, provider: str) -> None:
    """Add the three uploads."""
    office = _Office(studio, provider)
    for path, handler in (
        ("/api/file-stream-upload", office.stream),
        ("/api/file-base64-upload", office.base64),
        ("/api/file-url-upload", office.url),
    ):
        app.router.add_route("*", path, _answering(handler))


def _answering(handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if request.method != "POST":
                raise Refusal(Trouble.METHOD, "Method not allowed")
            return await handler(request)
        except Refusal as refusal:
            code = STATUSES.get(refusal.trouble, 400)
            return json_response({"success": False, "code": code, "msg": refusal.message}, status=code)

    return handle


@define(eq=False)
class _Office:
    studio: Studio
    provider: str

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Take a multipart upload, in constant memory."""
        check_bearer(request, self.studio.settings.api_key)
        texts: dict[str, str] = {}
        received: tuple[str, str, int] | None = None
        async for part in _parts(request):
            if part.name == "file" and received is None:
                # Form parts come in any order: the name is settled when all are here.
                key = f"uploads/{self.provider}/{uuid.uuid4()}"
                size = await self._store(key, part)
                received = (key, part.filename or "file", size)
            elif part.name is not None:
                texts[part.name] = (await part.read_chunk(MOST_TEXT_BYTES)).decode("utf-8", "replace")
        if received is None:
            raise Refusal(Trouble.MISSING, "file is required", names=["file"])
        key, original, size = received
        name = texts.get("fileName") or original
        return self._done(key, _path(texts, name), size)

    async def base64(self, request: web.Request) -> web.StreamResponse:
        """Take a file inside JSON: bare Base64 or a data URL."""
        check_bearer(request, self.studio.settings.api_key)
        body = await read_json_object(request)
        texts = _texts(body)
        data = texts.get("base64Data", "")
        head, comma, tail = data.partition(",")
        try:
            decoded = base64.b64decode(tail if comma else data, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(Trouble.INVALID, "base64Data is not valid Base64", names=["base64Data"]) from None
        if not decoded:
            raise Refusal(Trouble.MISSING, "base64Data is required", names=["base64Data"])
        kind = head.removeprefix("data:").partition(";")[0] if comma else ""
        name = texts.get("fileName") or f"{uuid.uuid4()}{mimetypes.guess_extension(kind) or '.bin'}"
        path = _path(texts, name)
        key = f"uploads/{self.provider}/{uuid.uuid4()}"
        self.studio.files.add(key, decoded)
        return self._done(key, path, len(decoded))

    async def url(self, request: web.Request) -> web.StreamResponse:
        """Fetch a file from elsewhere."""
        check_bearer(request, self.studio.settings.api_key)
        texts = _texts(await read_json_object(request))
        address = texts.get("fileUrl")
        if not is_address(address):
            raise Refusal(Trouble.INVALID, "fileUrl must be an http(s) URL", names=["fileUrl"])
        path = _path(texts, texts.get("fileName") or URL(address).name or str(uuid.uuid4()))
        data = await self.studio.files.read(await self.studio.library.fetch(address))
        key = f"uploads/{self.provider}/{uuid.uuid4()}"
        self.studio.files.add(key, data)
        return self._done(key, path, len(data))

    async def _store(self, key: str, part: BodyPartReader) -> int:
        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await part.read_chunk(CHUNK_BYTES):
                yield chunk

        return await self.studio.files.add_stream(key, chunks(), limit_bytes=self.studio.settings.max_upload_bytes)

    def _done(self, key: str, path: str, size: int) -> web.Response:
        """Answer as was seen live (sheet 9): `downloadUrl` is what a client uses."""
        final = f"uploads/{self.provider}/{path}"
        self.studio.files.rename(key, final)
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        uploaded = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = {
            "fileName": PurePosixPath(path).name,
            "filePath": path,
            "downloadUrl": self.studio.files.url(final),
            "fileSize": size,
            "mimeType": kind,
            "uploadedAt": uploaded,
        }
        return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})


async def _parts(request: web.Request) -> AsyncIterator[BodyPartReader]:
    if request.content_type != "multipart/form-data":
        raise Refusal(Trouble.BODY, "Content-Type must be multipart/form-data")
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                yield part
    except ValueError as error:
        raise Refusal(Trouble.BODY, "The body is not valid multipart/form-data") from error


def _texts(body: Mapping[str, object]) -> Mapping[str, str]:
    return {name: value for name, value in body.items() if isinstance(value, str)}


def _path(texts: Mapping[str, str], name: str) -> str:
    """Join `uploadPath` and the file's name, without what would climb out."""
    folder = texts.get("uploadPath")
    if not folder:
        raise Refusal(Trouble.MISSING, "uploadPath is required", names=["uploadPath"])
    parts = [part for part in f"{folder}/{PurePosixPath(name).name}".split("/") if part not in {"", ".", ".."}]
    return "/".join(parts)
