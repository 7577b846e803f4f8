"""vidgo.ai's uploads from the inside: images only, so that audio has to be hosted elsewhere.

https://docs.vidgo.ai/api-manual/file-series/upload-stream, upload-base64, upload-url (sheet 1.9).
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from aiohttp import web
from attrs import define
from yarl import URL

from ._bodies import check_bearer, json_response, read_json_object
from ._fields import is_address
from ._forms import decode_base64, fresh_key, read_form
from .studio import Studio
from .tasks import Refusal, Trouble

__all__ = ["add_routes"]

#: "JPEG, PNG, GIF, WebP only".
IMAGE_STARTS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
WEBP_MARK = slice(8, 12)
RETENTION = timedelta(hours=72)


def add_routes(app: web.Application, studio: Studio) -> None:
    """Add the three uploads."""
    office = _Office(studio)
    app.router.add_post("/api/common/upload/stream", office.stream)
    app.router.add_post("/api/common/upload/base64", office.base64)
    app.router.add_post("/api/common/upload/url", office.url)


@define(eq=False)
class _Office:
    studio: Studio

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Take a multipart upload."""
        check_bearer(request, self.studio.settings.api_key)
        form = await read_form(request, self.studio, file_names=("file",), provider="vidgo")
        if form.file is None:
            raise Refusal(Trouble.MISSING, "file is required", names=["file"])
        name = form.texts.get("file_name") or form.texts.get("fileName") or form.file.name
        folder = form.texts.get("upload_path") or form.texts.get("uploadPath") or ""
        return await self._done(form.file.key, original=form.file.name, name=name, folder=folder)

    async def base64(self, request: web.Request) -> web.StreamResponse:
        """Take a file inside JSON."""
        check_bearer(request, self.studio.settings.api_key)
        body = await read_json_object(request)
        data, suffix = decode_base64(_text(body, "base64_data"), name="base64_data")
        key = fresh_key("vidgo")
        self.studio.files.add(key, data)
        name = _text(body, "file_name") or f"{uuid.uuid4()}{suffix}"
        return await self._done(key, original=name, name=name, folder=_text(body, "upload_path"))

    async def url(self, request: web.Request) -> web.StreamResponse:
        """Fetch a file from elsewhere."""
        check_bearer(request, self.studio.settings.api_key)
        body = await read_json_object(request)
        address = body.get("file_url")
        if not is_address(address):
            raise Refusal(Trouble.INVALID, "file_url must be an http(s) URL", names=["file_url"])
        data = await self.studio.files.read(await self.studio.library.fetch(address))
        key = fresh_key("vidgo")
        self.studio.files.add(key, data)
        original = URL(address).name or "file"
        name = _text(body, "file_name") or original
        return await self._done(key, original=original, name=name, folder=_text(body, "upload_path"))

    async def _done(self, key: str, *, original: str, name: str, folder: str) -> web.Response:
        head = (await self.studio.files.read(key))[:16]
        kind = next((kind for start, kind in IMAGE_STARTS.items() if head.startswith(start)), None)
        if kind is None or (kind == "image/webp" and head[WEBP_MARK] != b"WEBP"):
            self.studio.files.remove(key)
            # The text is a sibling's (sheet 1.9).
            raise Refusal(Trouble.FORMAT, "Unsupported file type")
        parts = [part for part in f"temp/{folder}/{PurePosixPath(name).name}".split("/") if part not in {"", ".", ".."}]
        final = f"uploads/vidgo/{'/'.join(parts)}"
        self.studio.files.rename(key, final)
        address = self.studio.files.url(final)
        now = datetime.now(UTC)
        data = {
            "file_id": str(uuid.uuid4()),
            "file_name": parts[-1],
            "original_name": original,
            "file_size": len(await self.studio.files.read(final)),
            "mime_type": kind,
            "upload_path": "/".join(parts[:-1]),
            "file_url": address,
            "download_url": address,
            "upload_time": now.isoformat(),
            "expires_at": (now + RETENTION).isoformat(),
        }
        return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})


def _text(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""
