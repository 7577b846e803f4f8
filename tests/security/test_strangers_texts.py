"""Strangers' texts stay data everywhere: no new lines, terminal commands or bidi marks, and none of our secrets."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

import audioext as ax
from audioext.errors import Problem, UnreadableError
from audioext.http.urls import callback_url
from audioext.models.entries import make_entry
from audioext.models.events import Event, Failed, Unknown
from audioext.state.reading import Reading, masked, read
from tests.support.api import Api, callback, serve_api
from tests.support.tape import Tape, folded, request, shown, webhook

SECRET = b"0123456789abcdef-secret"
HOSTILE = "x\nCRITICAL root: you were hacked\x1b[31m\x9b2J\u202egnp.exe\u2066\x07\x00"
_COMMANDS = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Return a stand-in for kie.ai."""
    async with serve_api() as api:
        yield api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[ax.Client]:
    """Return a client that receives webhooks and never polls."""
    async with AsyncExitStack() as stack:
        quiet = api.provider(pace=ax.Pace(first=300.0, quiet=300.0))
        settings = {"public_url": "https://hooks.test/audio", "listen": None, "secrets": [SECRET]}
        yield await stack.enter_async_context(ax.Client(quiet, **settings))  # type: ignore[arg-type]  # as they are


async def deliver(client: ax.Client, job: ax.Job, body: object) -> int:
    """Deliver a webhook of *job*."""
    assert client.public_url is not None
    path = callback_url(client.public_url, SECRET, "kie", job.ref).raw_path
    return await client.inbox.accept(ax.Webhook(path=path, body=json.dumps(body).encode()))


def is_clean(text: str) -> bool:
    """Return whether *text* is one line without control characters."""
    return "\n" not in text and _COMMANDS.search(text) is None


@pytest.mark.parametrize("by", ["webhook", "status"])
async def test_a_quoted_api_key_is_neither_shown_nor_stored(
    api: Api, client: ax.Client, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    """An API key that a webhook or a status answer quotes is masked in the journal, so no error or log shows it."""
    caplog.set_level(logging.DEBUG, "audioext")
    key = api.provider().api_key
    assert key is not None
    job = await client.extend(audio_id="x", model="V5")
    if by == "webhook":
        failed = {"callbackType": "error", "task_id": job.task_id, "data": None}
        assert 200 == await deliver(client, job, {"code": 500, "msg": f"no access with Bearer {key}", "data": failed})
    else:
        api.is_done, api.word = False, f"NO ACCESS WITH {key}"
        await job.refresh()

    bodies = [entry.body for entry, _ in await client.timeline(job.ref)]
    assert b"***" in bodies[-1]
    assert key.encode() not in b"".join(bodies)
    assert key not in f"{job.record!r} {caplog.text}"


@pytest.mark.parametrize("key", ["plain-key_123", "ab+cd/ef/12==", 'o"dd\\key<&>x'])
@pytest.mark.parametrize("by", ["plain", "slashes", "small", "large"])
def test_a_key_is_masked_however_json_spells_it(key: str, by: str) -> None:
    """A quoted API key is masked also with the escapes of JSON encoders, and nothing else of the body is changed."""
    spelt = json.dumps(key)[1:-1]
    if by == "slashes":
        spelt = spelt.replace("/", "\\/")
    elif by != "plain":
        digits = "04x" if by == "small" else "04X"
        spelt = "".join(each if each.isalnum() or each in "-_" else f"\\u{ord(each):{digits}}" for each in key)
    assert key == json.loads(f'"{spelt}"')

    assert b'{"a\\/b": "\\u00e9***"}' == masked(f'{{"a\\/b": "\\u00e9{spelt}"}}'.encode(), ax.Kie(key))


async def test_a_hostile_failure_message_is_cleaned(client: ax.Client, caplog: pytest.LogCaptureFixture) -> None:
    """A hostile failure message puts no control character or tag into the error, the record, handlers or the log."""
    caplog.set_level(logging.DEBUG, "audioext")
    job = await client.extend(audio_id="x", model="V5")
    assert client.public_url is not None
    url = callback_url(client.public_url, SECRET, "kie", job.ref)
    body = callback("error", code=501)
    body["msg"] = f"{HOSTILE} we could not reach {url}"

    assert 200 == await deliver(client, job, body)
    with pytest.raises(ax.JobFailedError) as caught:
        await job

    assert job.failure is not None
    assert job.record.fault is not None
    texts = (str(caught.value), job.failure.message, job.record.fault.message, repr(job.failure))
    assert [True] * 4 == [is_clean(text) for text in texts]
    assert not [text for text in (*texts, repr(job.record), caplog.text) if url.name in text]
    assert all(is_clean(line) for record in caplog.records for line in record.getMessage().split("\n  "))


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "data": {"callbackType": HOSTILE, "task_id": "task-1", "data": []}},
        {"code": 200, "data": {"callbackType": "text", "task_id": HOSTILE, "data": []}},
        {"code": 200, "data": {"callbackType": "text", "task_id": "task-2", "data": []}},
        {"code": HOSTILE, "msg": HOSTILE, "data": {HOSTILE: HOSTILE}},
        {HOSTILE: {HOSTILE: [HOSTILE]}},
        [HOSTILE],
        HOSTILE,
    ],
)
async def test_a_hostile_webhook_is_logged_in_one_clean_line(
    client: ax.Client, caplog: pytest.LogCaptureFixture, body: object
) -> None:
    """Whatever is wrong with a webhook, its log line and stored reason are one clean line."""
    caplog.set_level(logging.DEBUG, "audioext")
    job = await client.extend(audio_id="x", model="V5")

    assert await deliver(client, job, body) in {200, 400, 401}

    assert all(is_clean(record.getMessage()) for record in caplog.records)
    notes = [delivery.note async for delivery in client.deliveries(job.ref)]
    assert all(map(is_clean, notes))
    assert all(map(is_clean, job.record.words))


@pytest.mark.parametrize("code", ["\x1b[31m", "a\nb"])
def test_hostile_codes_and_messages_are_plain_text(code: str) -> None:
    """Events and records keep hostile codes, messages and words as plain text."""
    assert is_clean(Failed(code=code, message=code).code or "")
    assert is_clean(Failed(code=code, message=code).message)
    (word,) = folded(request(), webhook(1, shown(None, word=code))).words
    assert is_clean(word)
    assert is_clean(Unknown(reason=code).reason)


def test_a_hostile_codec_error_becomes_a_clean_problem() -> None:
    """An error that a user's codec raises becomes a short, clean problem."""

    class Raising(Tape):
        def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
            raise ValueError(HOSTILE * 1_000 + body.decode())

    problem = read(make_entry("webhook", 1.0), Raising()).problem
    assert is_clean(problem)
    assert 1_100 > len(problem)
    assert isinstance(read(make_entry("webhook", 1.0), Raising()), Reading)


ERRORS: tuple[Callable[[str], Exception], ...] = (
    ax.ConfigError,
    ax.StoreError,
    UnreadableError,
    lambda text: ax.ProviderError(text, provider="kie", code=text),
    lambda text: ax.DecodeError([text], where=text),
    lambda text: ax.WebhookError(text, http_status=400),
    lambda text: ax.DownloadError([text]),
)


@given(text=st.text())
def test_every_error_is_one_clean_line(text: str) -> None:
    """Every error is one clean line, and only a RequestError has a line for each problem."""
    assert [True] * len(ERRORS) == [is_clean(str(make(text + HOSTILE))) for make in ERRORS]
    said = str(ax.RequestError([Problem("title", text), Problem("tags", HOSTILE)])).split("\n")
    assert (3, [True] * 3) == (len(said), [is_clean(line) for line in said])


@pytest.mark.parametrize("provider", [ax.Kie, ax.KieJobs, ax.SunoApi, ax.Vidgo, ax.MusicGpt])
@pytest.mark.parametrize("status", [200, 400, 500, 503])
def test_a_status_answer_does_not_show_our_url_and_key(provider: Callable[[str], ax.Provider], status: int) -> None:
    """A status answer that quotes our callback URL and API key shows neither to anybody."""
    key, url = "sk-0123456789abcdef", callback_url(URL("https://hooks.test/a"), SECRET, "kie", "r" * 24)
    says = f"we could not reach {url} for {key}{HOSTILE}"
    for body in ({"code": 500, "msg": says, "message": says, "error": says, "errorMessage": says}, says):
        try:
            events = provider(key).parse_status(ax.HttpResponse(status=status, body=json.dumps(body).encode()))
        except ax.AudioextError as error:
            said = str(error)
            assert is_clean(said)
        else:
            said = repr(events)
        assert [] == [secret for secret in (url.name, key) if secret in said]
