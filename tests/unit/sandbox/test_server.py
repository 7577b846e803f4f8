"""The sandbox as a whole: its lifetime, its files, and the control routes for other processes."""

import asyncio
import io
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
import pytest
import soundfile
from yarl import URL

from audioext import providers
from audioext.sandbox import FaultError, MissingExtraError, Sandbox
from tests.unit.sandbox.conftest import OpenWorld, World

pytestmark = pytest.mark.asyncio


async def test_it_describes_itself_in_json(world: World) -> None:
    """`describe` returns everything that a client needs, in JSON's types."""
    description = world.sandbox.describe()
    assert description == msgspec.json.decode(msgspec.json.encode(description))
    assert ["kie", "sunoapi", "vidgo", "musicgpt"] == list(world.sandbox.bases) == list(world.sandbox.origins)
    assert all(base.startswith(world.sandbox.url) for base in world.sandbox.bases.values())


async def test_each_provider_has_an_api(world: World) -> None:
    """Every provider has the base URL of its API, and both of kie.ai's routes have the same one."""
    bases = [world.sandbox.base_of(name) for name in providers.NAMES]
    assert [world.sandbox.bases[name] for name in ("kie", "kie", "sunoapi", "vidgo", "musicgpt")] == bases


async def test_each_api_has_a_bare_origin(world: World) -> None:
    """Each API also answers at an origin of its own, for the same tasks: clients join `/api/...` to it (wire S6)."""
    assert 5 == len({world.sandbox.url, *world.sandbox.origins.values()})
    bearer, raw = f"Bearer {world.sandbox.api_key}", world.sandbox.api_key
    for name, path, key, status in (
        ("kie", "/api/v1/chat/credit", bearer, 200),
        ("sunoapi", "/api/v1/generate/credit", bearer, 200),
        ("vidgo", "/api/user/balance", bearer, 200),
        ("musicgpt", "/byId?conversionType=EXTEND&task_id=nobody", raw, 404),
    ):
        alone = URL(world.sandbox.origins[name])
        assert alone == alone.origin()
        async with world.session.get(alone.join(URL(path)), headers={"Authorization": key}) as response:
            assert (name, status) == (name, response.status)
            assert "application/json" == response.content_type
    origin = URL(world.sandbox.origins["kie"])
    headers = {"Authorization": f"Bearer {world.sandbox.api_key}"}
    async with world.session.post(
        origin / "api/v1/generate/extend", json=world.kie_extend(), headers=headers
    ) as response:
        task_id = (await response.json())["data"]["taskId"]
    await world.sandbox.settled()
    assert "SUCCESS" == (await world.info(task_id))["status"]
    async with world.session.get(origin / "api/v1/nothing") as response:
        assert (404, 404) == (response.status, (await response.json())["code"])


async def test_each_track_has_an_id_of_its_own(world: World) -> None:
    """The ids of a task's tracks are random UUIDs at each API: clients name files by their beginning (wire S1)."""
    chosen = {"audio_id": world.sandbox.track_ids[0], "mv": "V5", "default_param_flag": False}
    for path, body in (
        ("/kie/api/v1/generate/extend", world.kie_extend()),
        ("/sunoapi/api/v1/generate/extend", world.kie_extend()),
        ("/vidgo/api/generate/submit", {"model": "extend-music", "input": chosen}),
        ("/musicgpt/extend", {"audio_url": world.sandbox.tune_url, "extend_after": 1}),
    ):
        assert 200 == (await world.call("POST", path, json=body))[0]
    await world.sandbox.settled()
    ids = [uuid.UUID(track.id) for task in world.sandbox.tasks for track in task.tracks]
    assert [4] * 8 == [each.version for each in ids]
    assert 8 == len({each.time_low for each in ids})


async def test_the_origins_can_have_ports_in_a_row() -> None:
    """With a first port for the origins, the others get the next ports in the order of the APIs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        first = probe.getsockname()[1]
    with suppress(OSError):  # another program may use one of them by now
        async with Sandbox(origin_port=first) as sandbox:
            assert [first, first + 1, first + 2, first + 3] == [URL(url).port for url in sandbox.origins.values()]


@pytest.mark.parametrize("path", ["control/submissions", "kie/api/v1/chat/credit", "files/tune.mp3"])
async def test_a_page_whose_name_leads_here_is_refused(world: World, path: str) -> None:
    """A request with a foreign Host header is refused, so that no web page can read callback URLs by DNS rebinding."""
    for host, is_refused in (("evil.test", True), ("127.0.0.1.evil.test:80", True), ("localhost:80", False)):
        async with world.session.get(f"{world.sandbox.url}/{path}", headers={"Host": host}) as response:
            assert is_refused == (response.status == 403)


async def test_no_key_is_in_its_repr() -> None:
    """The repr shows the settings without the secrets."""
    assert "SECRET" not in repr(Sandbox(api_key="SECRET-1", hmac_key="SECRET-2"))


async def test_it_leaves_nothing_behind() -> None:
    """Closing in the middle of work leaves no task and no socket, and closing again does nothing."""
    before = asyncio.all_tasks()
    async with Sandbox(speed=1.0, ready_seconds=3.0) as sandbox, aiohttp.ClientSession() as session:
        body = {
            "defaultParamFlag": False,
            "audioId": sandbox.track_ids[0],
            "model": "V5",
            "callBackUrl": "http://127.0.0.1:1/",
        }
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        url = f"{sandbox.bases['kie']}/api/v1/generate/extend"
        async with session.post(url, json=body, headers=headers) as response:
            assert 200 == response.status
        assert sandbox.tasks[0].is_open
    await sandbox.aclose()
    assert before == asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(sandbox.url)


async def test_it_closes_while_a_submit_waits_for_its_webhooks(open_world: OpenWorld) -> None:
    """A submit that waits for unanswered webhooks does not delay closing."""
    world = await open_world(faults=["callback_before_response"])
    hanging = asyncio.Event()

    async def hang(body: Any) -> None:
        del body
        await hanging.wait()

    world.listener.meanwhile = hang
    submit = asyncio.create_task(world.kie_task())
    await world.listener.wait(1)
    await world.sandbox.aclose()
    hanging.set()
    await asyncio.wait([submit])
    # The answer may arrive or not; both are fine once the sandbox closes.
    submit.exception()


async def test_a_taken_port_is_an_os_error(world: World) -> None:
    """A second sandbox at the same port raises `OSError`."""
    port = int(world.sandbox.url.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        await Sandbox(port=port).__aenter__()


async def test_it_must_run_to_be_used() -> None:
    """Before it runs a sandbox has no URLs, but stages can be held and faults scripted."""
    sandbox = Sandbox()
    sandbox.script("duplicate")
    sandbox.hold("complete")
    with pytest.raises(RuntimeError, match="async with"):
        _ = sandbox.tune_url

    assert (("duplicate",), ("complete",), True) == (sandbox.scripted, sandbox.held, sandbox.is_settled)


async def test_it_is_opened_only_by_async_with() -> None:
    """It has no `start()`, so that none forgets to close it."""
    assert not hasattr(Sandbox, "start")


async def test_a_bad_fault_is_refused_at_the_start() -> None:
    """A text that is not a fault is refused when the sandbox is made."""
    with pytest.raises(FaultError, match="explode"):
        Sandbox(faults=["explode"])


async def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without numpy or soundfile, starting raises an error with the command that installs them."""
    monkeypatch.setitem(sys.modules, "audioext.sandbox.audio", None)
    monkeypatch.delattr("audioext.sandbox.audio", raising=False)
    way = r'pip install "audioext\[sandbox\]", or in a clone: pip install "\.\[sandbox\]"'
    with pytest.raises(MissingExtraError, match=f"The sandbox needs more packages: {way}"):
        await Sandbox().__aenter__()


async def test_importing_it_loads_no_audio() -> None:
    """`import audioext.sandbox` loads neither numpy nor soundfile."""
    code = "import sys, audioext.sandbox; sys.exit('numpy' in sys.modules or 'soundfile' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert (0, b"") == (process.returncode, errors)


async def test_a_public_url_replaces_the_address(open_world: OpenWorld) -> None:
    """With a public URL all URLs have the address that clients reach, as behind a tunnel."""
    world = await open_world(public_url="http://sandbox.example.invalid:99")
    assert "http://sandbox.example.invalid:99/kie" == world.sandbox.bases["kie"]
    assert world.sandbox.tune_url.startswith("http://sandbox.example.invalid:99/files/")


async def test_ready_audio_plays(world: World) -> None:
    """The tune and the voice can be decoded, and have the configured length."""
    for url in (world.sandbox.tune_url, world.sandbox.voice_url):
        status, data = await world.call("GET", url.removeprefix(world.sandbox.url))
        assert 200 == status
        assert 3.0 == pytest.approx(soundfile.info(io.BytesIO(data)).duration, abs=0.1)


async def test_results_play_as_long_as_they_say(world: World) -> None:
    """A rendered file has the duration that its callback stated before."""
    await world.settled_task()
    for song in world.listener.bodies[-1]["data"]["data"]:
        _, data = await world.call("GET", song["audio_url"].removeprefix(world.sandbox.url))
        assert song["duration"] == pytest.approx(soundfile.info(io.BytesIO(data)).duration, abs=0.1)


async def test_files_answer_like_a_web_server(world: World) -> None:
    """Files have content types, ranges and HEAD; the stream is the same file, and the cover a PNG."""
    await world.settled_task()
    song = world.listener.bodies[-1]["data"]["data"][0]
    async with world.session.get(song["audio_url"]) as response:
        assert (200, "audio/mpeg") == (response.status, response.content_type)
        whole = await response.read()
    async with world.session.get(song["audio_url"], headers={"Range": "bytes=10-19"}) as response:
        assert (206, whole[10:20]) == (response.status, await response.read())
    async with world.session.head(song["audio_url"]) as response:
        assert (200, str(len(whole))) == (response.status, response.headers["Content-Length"])
    async with world.session.get(song["stream_audio_url"]) as response:
        assert (whole, "audio/mpeg") == (await response.read(), response.content_type)
    async with world.session.get(song["image_url"]) as response:
        assert "image/png" == response.content_type
        assert (await response.read()).startswith(b"\x89PNG\r\n")
    async with world.session.get(f"{world.sandbox.url}/files/kie/nothing.mp3") as response:
        assert 404 == response.status


async def test_a_file_is_rendered_once_for_all_who_ask(world: World) -> None:
    """Concurrent requests for a file that is not rendered yet all get the same bytes."""
    await world.settled_task()
    path = world.listener.bodies[-1]["data"]["data"][0]["audio_url"].removeprefix(world.sandbox.url)
    answers = await asyncio.gather(*(world.call("GET", path) for _ in range(5)))
    assert 1 == len({data for _, data in answers})


async def test_old_tasks_files_and_entries_go(open_world: OpenWorld) -> None:
    """Only a limited number of tasks, files and entries is kept; older ones are unknown, and the ready audio stays."""
    world = await open_world(keep_tasks=2, keep_files=6, keep_entries=4)
    ids = [await world.settled_task() for _ in range(4)]
    assert ids[2:] == [task.id for task in world.sandbox.tasks]
    assert (4, 4) == (len(world.sandbox.submissions), len(world.sandbox.deliveries))
    assert "recordInfo is null" == (await world.get("/kie/api/v1/generate/record-info", taskId=ids[0]))["msg"]
    first = world.listener.bodies[2]["data"]["data"][0]
    async with world.session.get(first["audio_url"]) as response:
        assert 404 == response.status
    gone = await world.post("/kie/api/v1/generate/extend", world.kie_extend(audioId=first["id"]))
    assert 404 == gone["code"]
    assert 200 == (await world.call("HEAD", world.sandbox.tune_url.removeprefix(world.sandbox.url)))[0]


async def test_a_file_whose_source_is_gone_is_gone(open_world: OpenWorld, tone: bytes) -> None:
    """A track that was not rendered before its source was dropped is not found."""
    world = await open_world(keep_files=4)  # the source, and the three files of the second track
    world.listener.sources |= {"tone": tone, "other": b""}
    for name in ("tone", "other"):
        body = world.kie_upload(uploadUrl=f"{world.listener.url}/source/{name}", continueAt=0.5)
        await world.post("/kie/api/v1/generate/upload-extend", body)
        await world.sandbox.settled()
    song = world.listener.bodies[-1]["data"]["data"][1]

    assert 404 == (await world.call("GET", song["audio_url"].removeprefix(world.sandbox.url)))[0]


async def test_another_process_can_script_it(world: World) -> None:
    """Faults can be added, listed and cleared over HTTP, in the same words."""
    added = await world.post("/control/faults", {"faults": ["drop=text", "duplicate@B"], "title": "A", "times": 2})
    assert {"faults": ["drop=text*2@A", "duplicate*2@B"]} == added
    assert added == await world.get("/control/faults")
    assert {"faults": []} == (await world.call("DELETE", "/control/faults"))[1]


@pytest.mark.parametrize(
    "body",
    [
        {"faults": "drop"},
        {"faults": ["explode"]},
        {"faults": [], "title": 7},
        {"faults": [], "times": "2"},
        [],
    ],
)
async def test_a_bad_script_is_refused(world: World, body: object) -> None:
    """An invalid script gets 400, and nothing is added."""
    status, answer = await world.call("POST", "/control/faults", json=body)
    assert (400, ["error"]) == (status, list(answer))
    assert {"faults": []} == await world.get("/control/faults")


async def test_a_page_of_another_site_steers_nothing(world: World) -> None:
    """A control request that is not declared as JSON is refused, since a web page could send it across sites."""
    for verb in ("faults", "hold", "release"):
        answer = await world.call("POST", f"/control/{verb}", data=b'{"faults": ["drop"]}')
        assert (400, {"error": "Content-Type must be application/json"}) == answer
    assert ((), ()) == (world.sandbox.scripted, world.sandbox.held)


async def test_another_process_can_count_the_submits(world: World) -> None:
    """Submissions are listed over HTTP, also those that made no task."""
    task_id = await world.kie_task()
    await world.post("/kie/api/v1/generate/extend", {})
    submissions = (await world.get("/control/submissions"))["submissions"]
    assert [task_id, None] == [submission["task_id"] for submission in submissions]
    assert world.listener.hook == submissions[0]["callback_url"]


async def test_it_closes_in_the_middle_of_a_rendering(open_world: OpenWorld) -> None:
    """A sandbox closes while a file is being rendered."""
    world = await open_world(ready_seconds=8.0)
    asking = asyncio.create_task(world.call("GET", world.sandbox.tune_url.removeprefix(world.sandbox.url)))
    # The request is read within a few turns of the loop; the rendering takes far longer.
    for _ in range(50):
        await asyncio.sleep(0)
    await world.sandbox.aclose()
    await asyncio.wait([asking])
    asking.exception()


async def test_many_tasks_at_once_settle(world: World) -> None:
    """Sixty concurrent tasks each send three webhooks."""
    ids = await asyncio.gather(*(world.kie_task(title=f"Part {number}") for number in range(60)))
    await world.sandbox.settled()
    assert 60 == len(set(ids))
    assert 180 == len(world.listener.bodies)


@pytest.mark.parametrize(("seed", "is_same"), [(None, False), (7, True)])
async def test_no_run_repeats_the_ids_of_another(open_world: OpenWorld, seed: int | None, is_same: bool) -> None:
    """Without a seed each run has its own task ids, and the ready tracks are the same in all runs."""
    tasks = []
    for _ in range(2):
        world = await open_world(seed=seed)
        body = await world.post("/kie/api/v1/generate/add-instrumental", world.kie_instrumental())
        tasks.append((world.sandbox.track_ids, body["data"]["taskId"]))

    (one_tracks, one), (two_tracks, two) = tasks
    assert one_tracks == two_tracks
    assert is_same == (one == two)
