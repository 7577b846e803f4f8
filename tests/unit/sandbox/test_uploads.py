"""The upload hosts of kie.ai and sunoapi.org, which take a file or a URL."""

from typing import Any

import aiohttp
import pytest

from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio

PROVIDERS = ("kie", "sunoapi")


def form(data: bytes, **texts: str) -> aiohttp.FormData:
    """Return a multipart body with the texts after the file."""
    made = aiohttp.FormData()
    made.add_field("file", data, filename="my-tone.wav", content_type="audio/wav")
    for name, text in texts.items():
        made.add_field(name, text)
    return made


async def upload(world: World, provider: str, way: str, data: bytes, **changes: Any) -> tuple[int, Any]:
    """Upload in one of the two ways."""
    if way == "stream":
        texts = {"uploadPath": "my/songs", "fileName": "a.wav"} | changes
        return await world.call("POST", f"/{provider}/api/file-stream-upload", data=form(data, **texts))
    world.listener.sources["tone.wav"] = data
    body = {"uploadPath": "my/songs", "fileName": "a.wav", "fileUrl": f"{world.listener.url}/source/tone.wav"}
    return await world.call("POST", f"/{provider}/api/file-url-upload", json=body | changes)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("way", ["stream", "url"])
async def test_an_uploaded_file_is_a_source(world: World, tone: bytes, provider: str, way: str) -> None:
    """Each kind of upload returns a download URL, which serves the same bytes and can be extended."""
    status, answer = await upload(world, provider, way, tone)
    assert (200, True, 200) == (status, answer["success"], answer["code"])
    data = answer["data"]
    assert ("a.wav", "my/songs/a.wav", len(tone)) == (data["fileName"], data["filePath"], data["fileSize"])
    async with world.session.get(data["downloadUrl"]) as response:
        assert (tone, "audio/wav") == (await response.read(), response.content_type)
    body = world.kie_upload(uploadUrl=data["downloadUrl"], continueAt=0.5)
    made = await world.post(f"/{provider}/api/v1/generate/upload-extend", body)
    assert 200 == made["code"]
    await world.sandbox.settled()
    assert "complete" == world.listener.bodies[-1]["data"]["callbackType"]


async def test_names_are_kept_or_found(world: World, tone: bytes) -> None:
    """Without `fileName` the name is that of the form's part, or of the URL."""
    _, stream = await world.call("POST", "/kie/api/file-stream-upload", data=form(tone, uploadPath="/p/../q/"))
    assert "p/q/my-tone.wav" == stream["data"]["filePath"]
    _, address = await upload(world, "kie", "url", tone, fileName=None)
    assert "tone.wav" == address["data"]["fileName"]


@pytest.mark.parametrize(
    ("way", "changes", "code"),
    [
        ("stream", {"uploadPath": ""}, 400),
        ("url", {"fileUrl": None}, 400),
        ("url", {"fileUrl": "file:///etc/passwd"}, 400),
        ("url", {"fileUrl": "http://127.0.0.1:1/a.mp3"}, 500),
        ("url", {"uploadPath": None}, 400),
    ],
)
async def test_bad_uploads_are_refused(
    world: World,
    tone: bytes,
    way: str,
    changes: dict[str, Any],
    code: int,
) -> None:
    """A refused upload has its code as HTTP status too, with `success` false."""
    for provider in PROVIDERS:
        status, answer = await upload(world, provider, way, tone, **changes)
        assert (code, code, False) == (status, answer["code"], answer["success"])


@pytest.mark.parametrize("way", ["stream", "url"])
async def test_uploads_check_key_method_and_form(world: World, way: str) -> None:
    """A bad key gets 401, another method 405, and another kind of body 400."""
    path = f"/kie/api/file-{way}-upload"
    assert 401 == (await world.call("POST", path, json={}, headers={"Authorization": "no"}))[0]
    assert 405 == (await world.call("GET", path))[0]
    assert 400 == (await world.call("POST", path, data=b"x", headers={"Content-Type": "text/plain"}))[0]


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
async def test_a_broken_form_is_refused(world: World, kind: str) -> None:
    """A multipart body without a boundary, or without any part, gets 400."""
    path = "/kie/api/file-stream-upload"
    status, answer = await world.call("POST", path, data=b"junk", headers={"Content-Type": kind})
    assert (400, False) == (status, answer["success"])


async def test_a_form_without_a_file_is_refused(world: World) -> None:
    """The file part is required."""
    made = aiohttp.FormData({"uploadPath": "p"}, default_to_multipart=True)
    status, answer = await world.call("POST", "/kie/api/file-stream-upload", data=made)
    assert (400, "file is required") == (status, answer["msg"])


async def test_a_file_over_the_limit_is_refused(open_world: OpenWorld, tone: bytes) -> None:
    """A file over the limit of bytes is refused in both kinds of upload."""
    world = await open_world(max_upload_bytes=1000)
    for way in ("stream", "url"):
        status, answer = await upload(world, "kie", way, tone)
        assert (400, False) == (status, answer["success"])
