"""The upload hosts of kie.ai and sunoapi.org, whose paths lie under the same bases here.

https://docs.kie.ai/file-upload-api/quickstart and https://docs.sunoapi.org/file-upload-api/quickstart.md
(sheet 9).
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath

from aiohttp import web
from attrs import define
from yarl import URL

from ._bodies import check_bearer, json_response, read_json_object
from ._fields import is_address
from ._forms import decode_base64, fresh_key, read_form
from .desk import Handler
from .files import content_type
from .studio import Studio
from .tasks import Refusal, Trouble

__all__ = ["add_routes"]

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
            return await (handler if request.method == "POST" else _refuse_method)(request)
        except Refusal as refusal:
            code = STATUSES.get(refusal.trouble, 400)
            return json_response({"success": False, "code": code, "msg": refusal.message}, status=code)

    return handle


async def _refuse_method(request: web.Request) -> web.StreamResponse:
    raise Refusal(Trouble.METHOD, f"{request.method} is not allowed")


@define(eq=False)
class _Office:
    studio: Studio
    provider: str

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Take a multipart upload, in constant memory."""
        check_bearer(request, self.studio.settings.api_key)
        form = await read_form(request, self.studio, file_names=("file",), provider=self.provider)
        if form.file is None:
            raise Refusal(Trouble.MISSING, "file is required", names=["file"])
        name = form.texts.get("fileName") or form.file.name
        return self._done(form.file.key, _path(form.texts, name), form.file.size)

    async def base64(self, request: web.Request) -> web.StreamResponse:
        """Take a file inside JSON: bare Base64 or a data URL."""
        check_bearer(request, self.studio.settings.api_key)
        texts = _texts(await read_json_object(request))
        data, suffix = decode_base64(texts.get("base64Data", ""), name="base64Data")
        path = _path(texts, texts.get("fileName") or f"{uuid.uuid4()}{suffix}")
        key = fresh_key(self.provider)
        self.studio.files.add(key, data)
        return self._done(key, path, len(data))

    async def url(self, request: web.Request) -> web.StreamResponse:
        """Fetch a file from elsewhere."""
        check_bearer(request, self.studio.settings.api_key)
        texts = _texts(await read_json_object(request))
        address = texts.get("fileUrl")
        if not is_address(address):
            raise Refusal(Trouble.INVALID, "fileUrl must be an http(s) URL", names=["fileUrl"])
        path = _path(texts, texts.get("fileName") or URL(address).name or str(uuid.uuid4()))
        data = await self.studio.files.read(await self.studio.library.fetch(address))
        key = fresh_key(self.provider)
        self.studio.files.add(key, data)
        return self._done(key, path, len(data))

    def _done(self, key: str, path: str, size: int) -> web.Response:
        """Answer as was seen live (sheet 9): `downloadUrl` is what a client uses."""
        final = f"uploads/{self.provider}/{path}"
        self.studio.files.rename(key, final)
        uploaded = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = {
            "fileName": PurePosixPath(path).name,
            "filePath": path,
            "downloadUrl": self.studio.files.url(final),
            "fileSize": size,
            "mimeType": content_type(path),
            "uploadedAt": uploaded,
        }
        return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})


def _texts(body: Mapping[str, object]) -> Mapping[str, str]:
    return {name: value for name, value in body.items() if isinstance(value, str)}


def _path(texts: Mapping[str, str], name: str) -> str:
    """Join `uploadPath` and the file's name, without what would climb out."""
    folder = texts.get("uploadPath")
    if not folder:
        raise Refusal(Trouble.MISSING, "uploadPath is required", names=["uploadPath"])
    parts = [part for part in f"{folder}/{PurePosixPath(name).name}".split("/") if part not in {"", ".", ".."}]
    return "/".join(parts)
