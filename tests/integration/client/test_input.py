"""Audio comes in any form, all problems come in one error, and a timeout says what was heard last."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import pytest
from attrs import frozen

import audioext as ax
from audioext.files.formats import suffix_of
from audioext.files.sources import Spool
from audioext.models.requests import AudioFile
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api
from tests.support.clock import PROMPT_SECONDS, JumpClock

FILES = ("kie", "vidgo", "musicgpt")
"""One provider for each way of passing a file: uploaded, served, or inside the submit."""


@pytest.fixture
def spool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test's temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@frozen
class Noted:
    """Meta as an object of the user's own."""

    value: float


class OnlyReads:
    """A file object that can only be read, like a pipe or a response."""

    def __init__(self, data: bytes) -> None:
        """Hold the bytes to read."""
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self._data.read(size)


class Breaks(OnlyReads):
    """A file object whose read fails."""

    def read(self, size: int = -1) -> bytes:
        """Raise an error."""
        message = f"no more than {size} bytes came"
        raise ConnectionResetError(message)


async def test_a_source_must_be_a_keyword_argument(open_client: MakeClient, api: Api) -> None:
    """A source passed by position raises a TypeError that names the arguments to use."""
    client = await open_client()

    for call, names in ((client.extend, "audio_id= or url= or file="), (client.add_instrumental, "url= or file=")):
        with pytest.raises(
            TypeError, match=f"takes its arguments by name: give the source as {names}, not 'voice.mp3'"
        ):
            await call("voice.mp3")  # type: ignore[arg-type]  # wrong on purpose
    assert [] == api.posts


async def extend(client: ax.Client, file: object) -> ax.Job:
    """Extend *file*, whatever the provider."""
    model = {} if "musicgpt" in repr(client) else {"model": "V5"}
    return await client.submit(ax.Extend.draft(file=file, continue_at=1, prompt="more", **model))


# --- audio in any form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", ["path", "bytes", "buffer", "object", "open", "reads"])
@pytest.mark.usefixtures("spool_folder")
async def test_audio_may_be_given_in_any_form(
    name: str, form: str, sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """Audio in any form arrives whole, its temporary file goes when the job is final, and the user's file stays."""
    data = voice_file.read_bytes()
    client = await make_client(sandbox, name)
    with voice_file.open("rb") as opened:
        file = {
            "path": voice_file,
            "bytes": data,
            "buffer": bytearray(data),
            "object": io.BytesIO(data),
            "open": opened,
            "reads": OnlyReads(data),
        }[form]
        job = await extend(client, file)
        song = await job

    assert song.tracks
    assert [] == list(Path(tempfile.gettempdir()).glob("audioext-file-*"))
    assert data == voice_file.read_bytes()
    assert ".wav" == (job.request.path or Path()).suffix
    assert 4.0 == round(job.request.source_duration or 0.0, 1)


async def test_a_served_file_stays_until_its_job_is_final(
    api: Api, open_client: MakeClient, voice_file: Path, spool_folder: Path
) -> None:
    """A served file stays while its task runs and is removed at the latest when the client closes."""
    clients = [await open_client(serve_files=True, **WEB) for _ in range(2)]
    jobs = [await client.extend(file=voice_file.read_bytes(), model="V5", continue_at=1) for client in clients]
    kept = [job.request.path for job in jobs]
    assert [True, True] == [path is not None and path.is_file() for path in kept]

    await api.call_back("complete", post=0)
    await jobs[0]
    assert [False, True] == [path is not None and path.exists() for path in kept]

    await clients[1].aclose()
    assert [] == list(spool_folder.iterdir())


async def _fetched(api: Api) -> int:
    """Return the status of the file that the last POST names."""
    async with aiohttp.ClientSession() as session, session.get(api.posts[-1]["uploadUrl"]) as response:
        return response.status


@pytest.mark.parametrize("fallback", [(), ("second",)])
async def test_a_served_file_is_there_after_a_refusal(
    api: Api, voice_file: Path, spool_folder: Path, clock: JumpClock, fallback: tuple[str, ...]
) -> None:
    """A file is served to each POST of a submit: also to a resend, or to a fallback, after a refusal."""
    api.codes, fetched = [402 if fallback else 429], list[int]()

    async def fetch(_: Api) -> None:
        fetched.append(await _fetched(api))

    api.on_post = fetch
    providers = (api.provider(), api.provider(name="second"))
    async with ax.Client(*providers, serve_files=True, clock=clock.clock, **WEB) as client:  # type: ignore[arg-type]  # as above
        data = voice_file.read_bytes()
        await clock.run(client.extend(file=data, model="V5", continue_at=1, fallback=fallback))
        fetched.append(await _fetched(api))

    assert [200, 200, 200] == fetched
    assert [] == list(spool_folder.iterdir())


async def test_a_file_is_served_while_its_task_may_exist(
    api: Api, open_client: MakeClient, voice_file: Path, spool_folder: Path
) -> None:
    """If the answer to the POST is lost, the file is served on, since the task may run, and removed at its end."""
    api.codes = [0]
    client = await open_client(serve_files=True, **WEB)
    job = await client.extend(file=voice_file.read_bytes(), model="V5", continue_at=1)
    fetched = await _fetched(api)
    await api.call_back("complete")
    await job

    assert (200, 404) == (fetched, await _fetched(api))
    assert [] == list(spool_folder.iterdir())


@pytest.mark.parametrize("fault", ["nothing given", "no key", "refused", "code=402"])
async def test_a_failed_submit_leaves_no_temporary_file(
    fault: str, api: Api, open_client: MakeClient, voice_file: Path, spool_folder: Path
) -> None:
    """A submit that fails for any reason leaves no temporary file."""
    api.codes = [402] if fault == "code=402" else []
    provider = ax.Kie(None if fault == "no key" else "0123456789abcdef0123", base_url=api.base)
    async with ax.Client(provider, serve_files=True, **WEB) as client:  # type: ignore[arg-type]  # a test's own settings
        with pytest.raises(ax.AudioextError):
            await client.extend(
                file=b"" if fault == "nothing given" else voice_file.read_bytes(),
                model="V5",
                continue_at=None if fault == "refused" else 1,
            )
        assert [] == list(spool_folder.iterdir())


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "what was given as file= is empty"),
        (io.BytesIO(), "what was given as file= is empty"),
        (b"print('la')" * 9, "what was given as file= is not an audio file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "what was given as file= is not an audio file"),
        (bytes(99), "what was given as file= is not an audio file"),
        (Breaks(b""), "cannot be read or copied: no more than"),
        (Path(__file__).parent, "is a folder: name a file in it"),
        (Path(__file__), "is not an audio file"),
        ("no/such.wav", "there is no file at no/such.wav"),
        (Path("deep/" * 200) / "such.wav", "such.wav"),
    ],
)
async def test_input_that_is_not_audio_is_refused_before_anything_is_sent(
    file: AudioFile, says: str, api: Api, open_client: MakeClient, spool_folder: Path
) -> None:
    """Input that is not audio is refused with a short description of it, and leaves no temporary file."""
    client = await open_client()

    with pytest.raises(ax.RequestError) as refused:
        await client.extend(file=file, model="V5", continue_at=1)

    (problem,) = refused.value.problems
    assert ("file", True) == (problem.field, says in problem.message)
    assert len(problem.message) < 200
    assert [] == api.posts
    assert [] == list(spool_folder.iterdir())


def test_a_file_object_is_read_from_where_it_stands(spool_folder: Path, voice_file: Path) -> None:
    """A file object is read from its current position and set back there for another submit; its own name is kept."""
    spool, file = Spool(), io.BytesIO(b"junkRIFF")
    file.seek(4)

    paths = [spool.keep(file), spool.keep(file)]
    with voice_file.open("rb") as opened:
        named = spool.keep(opened)
    assert isinstance(named, Path)
    contents = {path.read_bytes() for path in paths if isinstance(path, Path)}
    spool.drop(voice_file)
    spool.clear()

    assert ({b"RIFF"}, 4, "voice.wav") == (contents, file.tell(), named.name)
    assert voice_file.is_file()
    assert [] == list(spool_folder.iterdir())


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_file_object_may_read_any_buffer(kind: Callable[[bytes], object], spool_folder: Path) -> None:
    """A file object whose `read` returns a bytearray or a memoryview is read like one that returns bytes."""

    class Buffers(OnlyReads):
        def read(self, size: int = -1) -> Any:
            return kind(super().read(size))

    path = Spool().keep(Buffers(b"RIFF"))  # type: ignore[arg-type]  # it only reads
    assert isinstance(path, Path)
    assert b"RIFF" == path.read_bytes()
    assert [path.parent] == list(spool_folder.iterdir())


@pytest.mark.filterwarnings("error")
def test_a_read_that_has_to_be_awaited_is_told(spool_folder: Path) -> None:
    """A file object whose `read` returns a coroutine raises an error that says so, and leaves no coroutine behind."""

    class Wrapped:
        def read(self, size: int) -> Any:
            return asyncio.sleep(0, b"x" * size)

    problem = Spool().keep(Wrapped())  # type: ignore[arg-type]  # wrong on purpose

    assert isinstance(problem, ax.Problem)
    assert "async read(): read it first" in problem.message
    assert [] == list(spool_folder.iterdir())


def test_a_text_file_object_is_refused(spool_folder: Path) -> None:
    """A text file object raises an error that says how to open the file, also when only reading shows it."""

    class Text:
        def read(self, size: int) -> str:
            return "la" * size

    file: BinaryIO = Text()  # type: ignore[assignment]  # wrong on purpose
    problem = Spool().keep(file)

    assert isinstance(problem, ax.Problem)
    assert "open it with mode 'rb'" in problem.message
    assert [] == list(spool_folder.iterdir())


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"ID3\x04", ".mp3"),
        (b"\xff\xfb\x90\x64", ".mp3"),
        (b"\xff\xf1\x50\x80", ".aac"),
        (b"RIFF\0\0\0\0WAVEfmt ", ".wav"),
        (b"FORM\0\0\0\0AIFFCOMM", ".aiff"),
        (b"\0\0\0\x20ftypM4A ", ".m4a"),
        (b"OggS", ".ogg"),
        (b"fLaC", ".flac"),
        (b"\xff\xfet\0e\0x\0t\0", None),
        (b"RIFF\0\0\0\0WEBP", None),
        (b"<html>", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_utf_16_text_is_not_taken_for_an_mp3(head: bytes, suffix: str | None) -> None:
    """UTF-16 text is not taken for an MP3, although its first bytes look like an MP3 frame."""
    assert suffix == suffix_of(head)


# --- all problems at once --------------------------------------------------------------------------------------------


async def test_all_problems_come_at_once(api: Api) -> None:
    """The problems of request, file, key, meta, timeout and missing API key come in one error."""
    async with ax.Client(ax.Kie(base_url=api.base)) as client:
        request = ax.Extend.draft(file="no/such.wav", style_weight=7)
        with pytest.raises(ax.RequestError) as refused:
            await client.run(request, key="", meta={"a": object()}, timeout=-1)

        fields = {problem.field for problem in refused.value.problems}
        assert {"timeout", "file", "key", "meta", "model", "continue_at", "style_weight", "api_key"} == fields
        assert "set KIE_API_KEY, or pass `api_key=`" in str(refused.value)

        with pytest.raises(ax.ConfigError, match="no API key for kie: set KIE_API_KEY"):
            await client.extend(audio_id="x", model="V5")
    assert [] == api.posts


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_meta_with_a_number_that_json_lacks_is_refused(open_client: MakeClient, api: Api, value: float) -> None:
    """A number in meta that would come back as something else is refused before anything is sent, however deep."""
    client = await open_client()

    for meta in ({"a": value}, {"a": {"b": [1, (value,)]}}, Noted(value)):
        with pytest.raises(ax.RequestError, match="meta: must be a dict or an object with JSON values"):
            await client.extend(audio_id="x", model="V5", meta=meta)
    assert [] == api.posts


async def test_a_request_too_large_for_a_journal_is_refused(open_client: MakeClient, api: Api) -> None:
    """A request so large that it would fill its job's journal is refused."""
    client = await open_client()

    with pytest.raises(ax.RequestError, match="meta: must be at most 1048576 bytes of JSON"):
        await client.extend(audio_id="x", model="V5", meta={"notes": "x" * 1_048_576})
    with pytest.raises(ax.RequestError, match="prompt: must have at most 100000 characters"):
        await client.extend(audio_id="x", model="new", continue_at=1, title="a", style="b", prompt="x" * 100_001)
    assert [] == api.posts


@pytest.mark.parametrize("request_", [ax.Extend, {"audio_id": "x"}, None, "x" * 5_000])
async def test_a_wrong_request_object_says_what_to_pass(request_: object, open_client: MakeClient, api: Api) -> None:
    """A class, a dict or a text instead of a request raises an error that says what to pass."""
    client = await open_client()

    for call in (client.submit, client.run):
        with pytest.raises(ax.RequestError, match=r"must be a request, like Extend\(...\)") as refused:
            await call(request_)  # type: ignore[arg-type]  # wrong on purpose
        assert len(str(refused.value)) < 250
    assert [] == api.posts


async def test_no_message_of_a_call_repeats_a_long_value(open_client: MakeClient, api: Api) -> None:
    """No error message repeats a long value in full."""
    client, long = await open_client(), "x" * 5_000

    async def calls() -> list[BaseException | object]:
        return await asyncio.gather(
            client.extend(audio_id="x", model="V5", provider=long),
            client.extend(audio_id="x", model="V5", key=long),
            client.extend(audio_id="x", model="V5", meta={long: object()}),
            client.run(ax.Extend(audio_id="x", model="V5"), timeout=long),  # type: ignore[arg-type]  # wrong on purpose
            client.extend(file=long, model="V5", continue_at=1),
            client.job(long),
            client.delivery(long),
            client.credits(long),
            return_exceptions=True,
        )

    for error in await calls():
        assert isinstance(error, ax.AudioextError), error
        assert len(str(error)) < 300


async def test_a_misspelt_model_is_refused_before_the_upload(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A near miss of a model gets the right spelling before a byte of the file is sent (newcomer A)."""
    client = await make_client(sandbox)
    sent: list[int] = []

    for model, meant in (("v5", "V5"), ("V55", "V5_5")):
        with pytest.raises(ax.RequestError, match=f"model: there is no '{model}'; did you mean {meant}"):
            await client.extend(file=voice_file, model=model, continue_at=1, progress=lambda done, _: sent.append(done))

    assert ([], ()) == (sent, sandbox.submissions)


async def test_the_field_that_switched_custom_mode_on_is_named(open_client: MakeClient, api: Api) -> None:
    """The error names the field that switched custom mode on and how to switch it off, which then works."""
    client = await open_client()

    with pytest.raises(ax.RequestError) as refused:
        await client.extend(audio_id="x", model="V5", title="My Song", continue_at=2)
    message = (
        "is required in custom mode, which title and continue_at switched on (`custom=False` inherits from the source)"
    )
    assert {("prompt", message), ("style", message)} == {
        (problem.field, problem.message) for problem in refused.value.problems
    }

    await client.extend(audio_id="x", model="V5", title="My Song", continue_at=2, custom=False)
    assert 1 == len(api.posts)


# --- what a timeout says -----------------------------------------------------------------------------------------


async def test_a_timeout_says_that_no_webhook_came(api: Api, open_client: MakeClient) -> None:
    """If webhooks are expected and none came, the timeout names a likely cause; once one came, it does not."""
    job = await (await open_client(**WEB)).extend(audio_id="x", model="V5")
    with pytest.raises(ax.StageTimeoutError, match=r"it is at submitted; no webhook has come: can its public_url be"):
        await job.result(timeout=0.01)

    await api.call_back("text")
    with pytest.raises(ax.StageTimeoutError, match=r"\(it is at text\)"):
        await job.result(timeout=0.01)


async def test_a_timeout_says_why_a_webhook_was_not_used(api: Api, open_client: MakeClient) -> None:
    """If the last webhook could not be read, the timeout says so, as it may have been the result."""
    api.is_done, client = False, await open_client(**WEB)
    job = await client.extend(audio_id="x", model="V5")
    status = await client.inbox.accept(ax.Webhook(path=api.posts[0]["callBackUrl"], headers={}, body=b"<html>"))

    with pytest.raises(ax.StageTimeoutError, match="its last webhook was not used: cannot read the webhook: JSON"):
        await job.result(timeout=0.01)
    assert 400 == status


async def test_a_timeout_says_that_an_end_has_no_file(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """If the status says that the task is done, but has no file, the timeout says so."""
    api.link = ""
    job = await (await open_client(clock=clock.clock)).extend(audio_id="x", model="V5")

    with pytest.raises(ax.StageTimeoutError, match="the provider reported its end, but neither a file nor, again, a"):
        await clock.run(job.result(timeout=60.0))


async def test_a_timeout_quotes_an_unreadable_submit_answer(api: Api, open_client: MakeClient) -> None:
    """The timeout quotes a submit answer that could not be read, since that may explain the silence."""
    api.codes = [999]
    job = await (await open_client(**WEB)).extend(audio_id="x", model="V5")
    says = r"nothing is known of it yet; its submit got no readable answer: kie answered 999: the vendor's words"
    with pytest.raises(ax.StageTimeoutError, match=says):
        await job.result(timeout=0.01)


async def test_a_timeout_quotes_an_unknown_status_word(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """The timeout quotes an unknown status word, since it may be the vendor's new word for an end."""
    api.is_done, api.word = False, "ARCHIVED_FOR_LATER"
    job = await (await open_client(clock=clock.clock)).extend(audio_id="x", model="V5")
    with pytest.raises(ax.StageTimeoutError, match=r"the provider sent an unknown stage word: ARCHIVED_FOR_LATER\)"):
        await clock.run(job.result(timeout=60.0))


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ([503] * 99, r"its last status call said: .*503"),
        ([], r"its last status call, \d+ s ago, told nothing new"),
    ],
)
async def test_a_timeout_says_how_the_last_poll_ended(
    codes: list[int], says: str, api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """The timeout says whether the last poll was refused, in the provider's words, or answered."""
    api.status_codes, api.is_done = codes, False
    job = await (await open_client(clock=clock.clock)).extend(audio_id="x", model="V5")

    with pytest.raises(ax.StageTimeoutError, match=says):
        await clock.run(job.result(timeout=60.0))


async def test_a_timeout_says_that_a_client_cannot_ask(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """A wait in a process without the job's account says that it can only hope for a webhook."""
    api.is_done, store = False, ax.MemoryStore()
    job = await (await open_client(store=store, clock=clock.clock)).extend(audio_id="x", model="V5")

    async with ax.Client(store=store, clock=clock.clock) as other:
        same = await other.job(job.ref)
        with pytest.raises(ax.StageTimeoutError, match="this client has no key of 'kie' to ask for its status"):
            await clock.run(same.result(timeout=60.0))


async def test_a_timeout_says_that_a_status_call_was_never_sent(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """The timeout says that a status call was never sent, although the journal has no entry of it."""
    async with aiohttp.ClientSession() as session:
        client = await open_client(session=session, clock=clock.clock)
        job = await client.extend(audio_id="x", model="V5")

    with pytest.raises(ax.StageTimeoutError, match=r"its last status call said: .* session= of this client was closed"):
        await clock.run(job.result(timeout=60.0))


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: os.truncate(path, 1_000),
    "gone": lambda path: path.unlink(missing_ok=True),
    "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(1_000)),
}


@pytest.fixture
def recording(voice_file: Path, tmp_path: Path) -> Path:
    """Return a file that takes several reads."""
    path = tmp_path / "voice.wav"
    path.write_bytes(voice_file.read_bytes() + bytes(2_000_000))
    return path


@pytest.mark.parametrize("change", CHANGES)
async def test_a_file_that_changes_during_its_upload_is_not_submitted(
    change: str, sandbox: Sandbox, make_client: MakeClient, recording: Path
) -> None:
    """A recording that is still written, or removed, while it is uploaded is refused soon, and nothing is paid."""
    client = await make_client(sandbox)

    def moved(so_far: int, in_all: int | None) -> None:
        if in_all is not None and so_far < in_all:
            CHANGES[change](recording)

    async with asyncio.timeout(PROMPT_SECONDS):
        with pytest.raises(ax.RequestError, match=r"file: .*voice\.wav changed during its upload"):
            await client.extend(file=recording, model="V5", continue_at=1, progress=moved)

    assert () == sandbox.submissions
