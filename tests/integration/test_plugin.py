"""The pytest plugin, in projects of its users: each test here runs a pytest of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support import pages

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[2]
ASYNCIO = ("-p", "pytest_asyncio.plugin")
AUTO = (*ASYNCIO, "--asyncio-mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


class Project:
    """A user's project, whose tests know nothing of this one's settings."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        """Work in a folder of its own."""
        self._pytester = pytester

    def test(self, code: str, *options: str) -> pytest.RunResult:
        """Run the tests in *code*, which may leave out its imports."""
        head = "import asyncio, pytest\nimport audioext as ax\nfrom audioext.testing.clock import JumpClock\n"
        self._pytester.makepyfile(test_it=head + code)
        return self.run("test_it.py", *options)

    def run(self, *options: str) -> pytest.RunResult:
        """Run pytest with no plugin but ours, what *options* load, and what stops it if it hangs."""
        ours = ("-p", "audioext.testing.plugin", "-p", "pytest_timeout", "--timeout=30", "-p", "no:cacheprovider")
        return self._pytester.runpytest_subprocess("-W", "error", "--strict-markers", *ours, *options)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project in which pytest loads only the plugins that it is told to."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Project(pytester)


def test_the_example_passes(project: Project, pytester: pytest.Pytester) -> None:
    """The bot's tests in the examples pass as they stand."""
    folder = pytester.mkdir("examples")
    for name in ("bot_plain.py", "test_bot.py"):
        (folder / name).write_text((ROOT / "examples" / name).read_text(encoding="utf-8"), encoding="utf-8")

    project.run(*AUTO, "-o", "pythonpath=.", "examples").assert_outcomes(passed=4)


def test_the_readme_shows_a_test_that_passes(project: Project) -> None:
    """The README's own test passes as it stands, for a bot whose handlers do nothing."""
    (block,) = (each for each in pages.blocks(ROOT / "README.md") if each.startswith("import pytest\n"))
    bot = """
def my_bot(client):
    @client.on(ax.Stage.FIRST)
    async def note(event):
        assert event.tracks
"""

    project.test(bot + block, *AUTO).assert_outcomes(passed=1)


def test_the_guide_shows_tests_that_pass(project: Project) -> None:
    """The guide's own tests pass as they stand, in strict mode."""
    (block,) = (each for each in pages.blocks(ROOT / "audioext" / "SKILL.md") if each.startswith("import pytest\n"))
    scope = ("-o", "asyncio_default_fixture_loop_scope=function")

    project.test(block, *ASYNCIO, *scope).assert_outcomes(passed=2)


def test_every_provider_answers_by_webhook_and_by_poll(project: Project) -> None:
    """A client at any provider gets its song either way, in auto mode; the sandbox's settings are the marker's."""
    code = """
@pytest.mark.parametrize("by", ["webhook", "poll"])
@pytest.mark.parametrize("name", ["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"])
@pytest.mark.audioext_sandbox(hmac_key="key", ready_seconds=9.0, extension_seconds=8.0)
async def test_any(audioext_client, audioext_sandbox, name, by):
    client = await audioext_client(name, by=by)
    told = []
    @client.on(ax.Stage.COMPLETE)
    async def note(event):
        told.append(event)
    model = {} if name == "musicgpt" else {"model": "V5"}
    job = await client.extend(url=audioext_sandbox.tune_url, continue_at=8.0, **model)
    await client.settled()
    assert job.record.is_final and [event.ref for event in told] == [job.ref]
    assert ("poll" if by == "poll" else "webhook") == told[0].source
    assert len(audioext_sandbox.submits) == 1
    song = await job
    assert 16 <= (song.tracks[0].duration or 16)
"""
    project.test(code, *AUTO).assert_outcomes(passed=10)


def test_strict_mode_needs_no_more_than_its_marker(project: Project) -> None:
    """The fixtures work in strict mode without a word about pytest-asyncio's own kind of fixture."""
    code = """
@pytest.mark.asyncio
async def test_it(audioext_client, audioext_sandbox):
    client = await audioext_client()
    song = await client.run(ax.Extend(audio_id=audioext_sandbox.track_ids[0], model="V5"))
    assert song.tracks
"""
    scope = ("-o", "asyncio_default_fixture_loop_scope=function")
    project.test(code, *ASYNCIO, *scope).assert_outcomes(passed=1)


def test_a_held_stage_is_seen_by_nobody_until_it_is_released(project: Project) -> None:
    """Neither webhooks nor polls show a held stage, and `settled` waits for all that comes before it."""
    code = """
@pytest.mark.parametrize("by", ["webhook", "poll"])
async def test_steps(audioext_client, audioext_sandbox, by):
    client = await audioext_client(by=by)
    told = []
    for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):
        @client.on(stage)
        async def note(event):
            told.append(event.stage.name)
    audioext_sandbox.hold()
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    seen = []
    for word in ("text", "first", "complete"):
        await client.settled()
        seen.append((job.stage.name, *told))
        audioext_sandbox.release(word)
    song = await job
    await client.settled()
    assert seen == [("SUBMITTED",), ("TEXT", "TEXT"), ("FIRST", "TEXT", "FIRST")]
    assert told[2:] == ["COMPLETE"] and audioext_sandbox.is_settled

async def test_one_stage(audioext_client, audioext_sandbox):
    client = await audioext_client()
    audioext_sandbox.hold("first")
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    await client.settled()
    assert job.stage is ax.Stage.TEXT
    audioext_sandbox.release()
    await client.settled()
    assert job.stage is ax.Stage.COMPLETE
    with pytest.raises(ValueError, match="text, first, complete"):
        audioext_sandbox.hold("third")
"""
    project.test(code, *AUTO).assert_outcomes(passed=3)


def test_time_passes_when_it_is_told_to(project: Project) -> None:
    """Lost webhooks, the grace period, a handler's back-off and a job's expiry take no time."""
    code = """
@pytest.mark.audioext_faults("drop")
async def test_polled(audioext_client, audioext_sandbox, audioext_clock):
    client = await audioext_client()
    began_at = audioext_clock.time
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    assert (await audioext_clock.run(job)).tracks
    assert 140 < audioext_clock.time - began_at < 200

@pytest.mark.audioext_faults("lose_response=unmade")
async def test_grace(audioext_client, audioext_sandbox, audioext_clock):
    client = await audioext_client(audioext_client.provider("kie", grace=60))
    began_at = audioext_clock.time
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    with pytest.raises(ax.SubmitUnknownError):
        await audioext_clock.run(job)
    assert 60 <= audioext_clock.time - began_at < 70

async def test_back_off(audioext_client, audioext_sandbox, audioext_clock):
    client = await audioext_client()
    tries = []
    @client.on(ax.Stage.COMPLETE)
    async def fail(event):
        tries.append(audioext_clock.time)
        raise RuntimeError("not today")
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    await client.settled()
    assert len(tries) == 1
    while len(tries) < 5:
        await audioext_clock.advance(8)
        await client.settled()
    assert len(job.record.handler_faults) == 1

@pytest.mark.parametrize("flies", [True, False])
async def test_expiry(audioext_client, audioext_sandbox, audioext_clock, flies):
    client = await audioext_client(wait_timeout=200_000)
    audioext_sandbox.hold("complete")
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    if not flies:
        await client.settled()
        await audioext_clock.advance(86_401)
    with pytest.raises(ax.JobExpiredError):
        await audioext_clock.run(job)
"""
    project.test(code, *AUTO).assert_outcomes(passed=5)


def test_what_was_opened_is_closed_and_what_hangs_is_named(project: Project) -> None:
    """Clients are closed after their test, also one that an application opens; `settled` says who is not done."""
    code = """
clients = []

async def test_open(audioext_client, audioext_sandbox):
    clients.append(await audioext_client("kie", "vidgo", by="poll"))
    own = await audioext_client(open=False)
    assert "new" in repr(own)
    async with own:
        clients.append(own)
    await own.aclose()

def test_closed():
    assert ["closed", "closed"] == [repr(client)[:-1].split()[-1] for client in clients]

async def test_slow(audioext_client, audioext_sandbox):
    client = await audioext_client()
    done = asyncio.Event()
    @client.on(ax.Stage.TEXT)
    async def wait(event):
        await done.wait()
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    with pytest.raises(TimeoutError, match=f"handler of <Job {job.ref}"):
        await client.settled(timeout=0.3)
    done.set()
    await client.settled()

async def test_chain(audioext_client, audioext_sandbox):
    client = await audioext_client()
    @client.on(ax.Stage.COMPLETE)
    async def go_on(event):
        if len(audioext_sandbox.submits) < 3:
            await client.submit(event.tracks[0].extend())
    await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    await client.settled()
    assert 3 == len(audioext_sandbox.submits)
    assert [] == [job async for job in client.jobs(open=True)]
    assert {"audioId", "defaultParamFlag", "model"} == set(audioext_sandbox.submits[0])
"""
    project.test(code, *AUTO).assert_outcomes(passed=4)


def test_mistakes_are_explained(project: Project) -> None:
    """A fault that is none, a marker used wrongly, an unknown provider and a loop of another scope say what to do."""
    code = """
@pytest.mark.audioext_faults("duplicated")
async def test_fault(audioext_sandbox): ...

@pytest.mark.audioext_faults(drop="first")
async def test_named(audioext_sandbox): ...

@pytest.mark.audioext_sandbox("fast")
async def test_nameless(audioext_sandbox): ...

@pytest.mark.audioext_sandbox(fast=True)
async def test_unknown(audioext_sandbox): ...

async def test_provider(audioext_client):
    with pytest.raises(ValueError, match="kie, kie-jobs, sunoapi, vidgo, musicgpt"):
        await audioext_client("suno")
    with pytest.raises(ValueError, match="webhook"):
        await audioext_client(by="mail")

@pytest.mark.asyncio(loop_scope="module")
async def test_loop(audioext_client):
    with pytest.raises(RuntimeError, match="asyncio_default_fixture_loop_scope"):
        await audioext_client()
"""
    result = project.test(code, *AUTO)

    result.assert_outcomes(passed=2, errors=4)
    lines = ("*'duplicated' is no fault; the faults are duplicate,*", "*takes texts*", "*by name*", "*'fast'*Settings*")
    result.stdout.fnmatch_lines(lines)


def test_workers_share_nothing(project: Project) -> None:
    """Under pytest-xdist each test has its own ports and task ids."""
    code = """
@pytest.mark.parametrize("number", range(6))
async def test_it(audioext_client, audioext_sandbox, number):
    client = await audioext_client()
    await client.run(ax.Extend(audio_id=audioext_sandbox.track_ids[0], model="V5"))
    assert len(audioext_sandbox.tasks) == 1
"""
    project.test(code, *AUTO, "-p", "xdist", "-n2").assert_outcomes(passed=6)


def test_without_pytest_asyncio_the_fixtures_say_so(project: Project) -> None:
    """Where nothing runs asynchronous fixtures, whoever asks for one is told what to install."""
    result = project.test(
        "def test_a(audioext_client): ...\ndef test_b(audioext_sandbox): ...\ndef test_c(audioext_clock): ..."
    )

    result.assert_outcomes(errors=3)
    assert "need pytest-asyncio, which is not active: pip install pytest-asyncio" in result.stdout.str()


def test_it_costs_nothing_where_nobody_asks_for_it(project: Project) -> None:
    """A project without these fixtures loads neither an HTTP library nor the client nor the sandbox."""
    code = """import sys
def test_it():
    heavy = {"aiohttp", "attrs", "msgspec", "numpy", "audioext.client", "audioext.sandbox"}
    assert not heavy & set(sys.modules)
"""
    (Path.cwd() / "test_light.py").write_text(code, encoding="utf-8")

    project.run(*AUTO, "test_light.py").assert_outcomes(passed=1)


def test_pytest_finds_it() -> None:
    """The installed package names the plugin to pytest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {"audioext": "audioext.testing.plugin"} == project["entry-points"]["pytest11"]
