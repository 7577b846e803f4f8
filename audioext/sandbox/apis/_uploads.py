"""Reads files that clients send; the upload hosts of kie.ai and sunoapi.org, whose paths lie under the same bases here.

https://docs.kie.ai/file-upload-api/quickstart and https://docs.sunoapi.org/file-upload-api/quickstart.md
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath

from aiohttp import web
from yarl import URL

from audioext.sandbox.apis._api import Api, Form, json_response, read_form, read_json_object
from audioext.sandbox.library import Library, content_type, is_address
from audioext.sandbox.models import Cause, Refusal

# Upload errors carry their code as HTTP status too.
UPLOAD_STATUSES = {Cause.KEY: 401, Cause.METHOD: 405, Cause.SOURCE: 500}
INVALID_UPLOAD_STATUS = 400


def add_uploads(app: web.Application, api: Api) -> None:
    """Add the two uploads of an account, a form and an address to fetch; a wrong method has an answer of its own."""

    async def upload(request: web.Request) -> web.StreamResponse:
        try:
            if request.method != "POST":
                raise Refusal(Cause.METHOD, f"{request.method} is not allowed")
            api.check_key(request)
            is_form = request.match_info["kind"] == "stream"
            library = api.state.library
            texts, file = await (read_form(request, library, "file") if is_form else _fetch(request, library))
            data = await _keep(api, texts, file)
        except Refusal as refusal:
            code = UPLOAD_STATUSES.get(refusal.cause, INVALID_UPLOAD_STATUS)
            return json_response({"success": False, "code": code, "msg": refusal.message}, status=code)
        return json_response({"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})

    app.router.add_route("*", "/api/file-{kind:stream|url}-upload", upload)


async def _fetch(request: web.Request, library: Library) -> Form:
    """Read an upload by its address."""
    body = await read_json_object(request)
    texts = {name: value for name, value in body.items() if isinstance(value, str)}
    address = texts.get("fileUrl")
    if not is_address(address):
        raise Refusal(Cause.INVALID, "fileUrl must be an http(s) URL")
    return texts, (await library.fetch(address), URL(address).name or "file")


async def _keep(api: Api, texts: Mapping[str, str], file: tuple[str, str] | None) -> Mapping[str, object]:
    """Keep a file where the client wants it; answer as was seen live: `downloadUrl` is what a client uses."""
    if file is None:
        raise Refusal(Cause.MISSING, "file is required")
    if not texts.get("uploadPath"):
        raise Refusal(Cause.MISSING, "uploadPath is required")
    (source, own_name), library = file, api.state.library
    name = PurePosixPath(texts.get("fileName") or own_name).name
    # Nothing climbs out of the folder.
    path = "/".join(part for part in f"{texts['uploadPath']}/{name}".split("/") if part not in {"", ".", ".."})
    key = f"uploads/{api.facts.provider}/{path}"
    library.copy(source, key)
    return {
        "fileName": name,
        "filePath": path,
        "downloadUrl": library.url(key),
        "fileSize": (await library.path(key)).stat().st_size,
        "mimeType": content_type(path),
        "uploadedAt": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
