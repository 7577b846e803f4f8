"""Reads files that clients send; the upload hosts of kie.ai and sunoapi.org, whose paths lie under the same bases here.

https://docs.kie.ai/file-upload-api/quickstart and https://docs.sunoapi.org/file-upload-api/quickstart.md
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TypeAlias

from aiohttp import BodyPartReader, web
from attrs import frozen
from yarl import URL

from audioext.sandbox.apis._api import Api, is_address, json_response, read_json_object
from audioext.sandbox.files import content_type
from audioext.sandbox.models import Cause, Refusal

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


Form: TypeAlias = tuple[Mapping[str, str], ReceivedFile | None]
"""The texts of a submit or an upload, and its file."""


async def read_form(request: web.Request, api: Api, *, file_name: str) -> Form:
    """Read a multipart form, in constant memory; parts come in any order, the first file of that name is kept.

    A body that is no form, or a file that is too big, raises Refusal.
    """
    if request.content_type != "multipart/form-data":
        raise Refusal(Cause.BODY, "Content-Type must be multipart/form-data")
    files, most_bytes = api.state.files, api.state.settings.max_upload_bytes
    texts: dict[str, str] = {}
    received: ReceivedFile | None = None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                continue
            if part.name == file_name and received is None:
                key, size = await files.receive(part.read_chunk, limit_bytes=most_bytes)
                received = ReceivedFile(key, part.filename or "file", size)
            else:
                texts[part.name] = (await part.read_chunk(MOST_TEXT_BYTES)).decode("utf-8", "replace")
    except ValueError as error:
        raise Refusal(Cause.BODY, "The body is not valid multipart/form-data") from error
    return texts, received


def add_uploads(app: web.Application, api: Api) -> None:
    """Add the two uploads of an account, a form and an address to fetch; a wrong method has an answer of its own."""

    async def upload(request: web.Request) -> web.StreamResponse:
        try:
            if request.method != "POST":
                raise Refusal(Cause.METHOD, f"{request.method} is not allowed")
            api.check_key(request)
            is_form = request.match_info["kind"] == "stream"
            form = await (read_form(request, api, file_name="file") if is_form else _fetch(request, api))
            data = _keep(api, *form)
        except Refusal as refusal:
            code = STATUSES.get(refusal.cause, INVALID_STATUS)
            return json_response({"success": False, "code": code, "msg": refusal.message}, status=code)
        return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})

    app.router.add_route("*", "/api/file-{kind:stream|url}-upload", upload)


async def _fetch(request: web.Request, api: Api) -> Form:
    body = await read_json_object(request)
    texts = {name: value for name, value in body.items() if isinstance(value, str)}
    address = texts.get("fileUrl")
    if not is_address(address):
        raise Refusal(Cause.INVALID, "fileUrl must be an http(s) URL")
    files, key = api.state.files, f"received/{uuid.uuid4()}"
    files.copy(await api.state.library.fetch(address), key)
    return texts, ReceivedFile(key, URL(address).name or "file", len(await files.read(key)))


def _keep(api: Api, texts: Mapping[str, str], file: ReceivedFile | None) -> Mapping[str, object]:
    """Keep a file where the client wants it; answer as was seen live: `downloadUrl` is what a client uses."""
    if file is None:
        raise Refusal(Cause.MISSING, "file is required")
    if not texts.get("uploadPath"):
        raise Refusal(Cause.MISSING, "uploadPath is required")
    name = PurePosixPath(texts.get("fileName") or file.name).name
    # Nothing climbs out of the folder.
    path = "/".join(part for part in f"{texts['uploadPath']}/{name}".split("/") if part not in {"", ".", ".."})
    key = f"uploads/{api.facts.provider}/{path}"
    api.state.files.rename(file.key, key)
    return {
        "fileName": name,
        "filePath": path,
        "downloadUrl": api.state.files.url(key),
        "fileSize": file.size,
        "mimeType": content_type(path),
        "uploadedAt": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
