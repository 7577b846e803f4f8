"""Progress messages show the latest state, are edited rarely, and always get their last word, also after a restart."""

from __future__ import annotations

import asyncio
import html
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

import audioext as ax
from audioext.bots import Asker, ProgressMessages, Texts, in_words
from tests.support.api import Api, serve_api
from tests.support.clock import START, JumpClock, soon

ROOT = Path(__file__).parents[2]
URL = "https://files.test/voice.mp3"
EVERY = 5.0
ASKED = {"chat": 42, "message": 7}


class ChatError(Exception):
    """An error of a chat library, with `retry_after` if the chat limits the rate."""

    def __init__(self, text: str, retry_after: object = None) -> None:
        """Store the message and the pause."""
        self.retry_after = retry_after
        super().__init__(text)


@define
class Chat:
    """Keeps every text of every message, newest last; `faults` are raised by the next edits, `closed` by all calls."""

    said: dict[int | str, list[str]] = field(factory=dict)
    faults: list[Exception] = field(factory=list)
    is_closed: bool = False
    edits: int = 0
    on_send: Callable[[], object] = bool
    """Called before a message is sent."""

    async def send(self, chat: int | str, text: str) -> int:
        """Send a message."""
        self.on_send()
        if self.is_closed or chat != ASKED["chat"]:
            raise ChatError("chat not found")
        number = 100 + len(self.said)
        self.said[number] = [text]
        return number

    async def edit(self, chat: int | str, message: int | str, text: str) -> None:
        """Edit a message; like real chats, refuse an edit without a change."""
        self.edits += 1
        if self.is_closed or chat != ASKED["chat"]:
            raise ChatError("chat not found")
        if self.faults:
            raise self.faults.pop(0)
        if self.said[message][-1] == text:
            raise ChatError("Bad Request: message is not modified")
        self.said[message].append(text)

    @property
    def last(self) -> str:
        """The current text of the newest message."""
        return next(reversed(self.said.values()))[-1]


@define
class Bot:
    """A bot, its chat, and its API."""

    client: ax.Client
    progress: ProgressMessages
    chat: Chat
    api: Api
    clock: JumpClock

    async def ask(self, **fields: object) -> ax.Job | None:
        """Ask for a song."""
        given = {"url": URL, "model": "V5", "continue_at": 2, **ASKED, **fields}
        return await self.progress.extend(**given)  # type: ignore[arg-type]  # a test's own fields

    async def says(self, text: str) -> None:
        """Wait until the newest message begins with a text."""

        async def is_said() -> bool:
            return bool(self.chat.said) and self.chat.last.startswith(text)

        await soon(is_said)


Open = Callable[..., Awaitable[Bot]]


@pytest.fixture
def clock() -> JumpClock:
    """Return a clock that moves only when the test moves it."""
    return JumpClock(START)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Return an API whose tasks advance when the test says so, by webhook."""
    async with serve_api() as api:
        api.is_done = False
        yield api


@pytest.fixture
async def open_bot(api: Api, clock: JumpClock) -> AsyncIterator[Open]:
    """Return a function that starts a bot; with the same store and chat it is the same bot after a restart."""
    async with AsyncExitStack() as stack:

        async def start(*, chat: Chat | None = None, **settings: object) -> Bot:
            mine = {name: settings.pop(name) for name in ("texts", "escape", "name", "every") if name in settings}
            client = ax.Client(
                api.provider(),
                public_url="http://127.0.0.1:{port}",
                listen="127.0.0.1:0",
                clock=clock.clock,
                **settings,  # type: ignore[arg-type]  # a test's own
            )
            chat = chat if chat is not None else Chat()
            mine.setdefault("every", EVERY)
            progress = ProgressMessages(client, send=chat.send, edit=chat.edit, expected=90, **mine)  # type: ignore[arg-type]  # as above
            await stack.enter_async_context(client)
            return Bot(client, progress, chat, api, clock)

        yield start


# --- messages -------------------------------------------------------------------------------------------------


async def test_a_message_shows_each_state_and_the_last_word(open_bot: Open) -> None:
    """One message goes from waiting to the links, with the elapsed and the expected time."""
    bot = await open_bot()
    job = await bot.ask(meta={"user": "kim"})
    assert job is not None
    await bot.says("In the queue, 0:00 of about 1:30")
    await bot.clock.advance(EVERY)
    await bot.says("In the queue, 0:05 of about 1:30")
    await bot.api.call_back("text")
    await bot.clock.advance(EVERY)
    await bot.says("It is being made, 0:10")
    await bot.api.call_back("first")
    await bot.clock.advance(EVERY)
    await bot.says("A first listen:\nhttp://files.test/a.mp3\n")
    await bot.api.call_back("complete")
    await bot.says("Here it is:\nhttp://files.test/a.mp3")

    assert [100] == list(bot.chat.said)
    assert {"bot": "bot", "chat": 42, "message": 7, "progress": 100, "user": "kim"} == job.meta
    assert "bot:42:7" == job.key


async def test_edits_are_few_and_show_the_latest_state(open_bot: Open) -> None:
    """Edits are at least the interval apart and show the latest state; the last word is shown at once."""
    bot = await open_bot()
    await bot.ask()
    await bot.says("In the queue")
    before = bot.chat.edits
    for stage in ("text", "first"):
        await bot.api.call_back(stage)
    await bot.clock.advance(EVERY - 1)
    assert (0, "In the queue") == (bot.chat.edits - before, bot.chat.last.partition(",")[0])
    await bot.clock.advance(1)
    await bot.says("A first listen")

    assert 1 == bot.chat.edits - before


@pytest.mark.parametrize(("stage", "word"), [("complete", "Here it is:"), ("error", "That did not work.")])
async def test_the_last_word_is_shown_by_one_edit(open_bot: Open, stage: str, word: str) -> None:
    """The last word is one edit, not one by the follower of the job and one by its handler."""
    bot = await open_bot()
    job = await bot.ask()
    assert job is not None
    await bot.says("In the queue")
    before = bot.chat.edits
    await bot.api.call_back(stage)

    async def is_told() -> bool:
        return bool(job.record.handled & {"complete", "failed"})

    await soon(is_told)
    await bot.clock.advance(EVERY)

    assert (1, word) == (bot.chat.edits - before, bot.chat.last[: len(word)])


async def test_a_failure_message_leaves_out_the_vendors_words(open_bot: Open) -> None:
    """A failure message leaves out the vendor's words and says if nothing was charged."""
    bot = await open_bot()
    await bot.ask()
    await bot.api.call_back("error", code=400)
    await bot.says("That did not work. ")

    assert "the vendor" not in bot.chat.last


async def test_each_text_can_be_replaced(open_bot: Open) -> None:
    """Each text can be replaced, and links are escaped for chats with markup."""
    bot = await open_bot(texts=Texts(complete="<b>fertig</b> {links}"), escape=html.escape)
    bot.api.link = "http://files.test/a.mp3?a=1&b=2"
    bot.api.is_done = True
    job = await bot.ask()
    assert job is not None
    await job.refresh()
    await bot.says("<b>fertig</b> http://files.test/a.mp3?a=1&amp;b=2")


@pytest.mark.parametrize("text", ["{link}", "{", "{0}", "{links.x}"])
def test_a_text_that_cannot_be_filled_in_is_refused_at_once(text: str) -> None:
    """A text with a wrong placeholder is refused when the bot starts."""
    with pytest.raises(ax.ConfigError, match="complete= may hold"):
        Texts(complete=text)


async def test_the_message_of_an_expired_job_says_that_nothing_came(open_bot: Open) -> None:
    """The message of an expired job, for which no handler runs, says that nothing came."""
    bot = await open_bot(expire_after=60.0)
    await bot.ask()
    await bot.says("In the queue")
    for _ in range(5):
        await bot.clock.advance(30)
    await bot.says("Nothing has arrived for too long")


# --- submits --------------------------------------------------------------------------------------------------


async def test_an_update_that_comes_again_pays_nothing(open_bot: Open) -> None:
    """An update that is delivered twice, in turn or at once, makes one POST and one job, and the chat is told so."""
    bot = await open_bot()
    first, second = await asyncio.gather(bot.ask(), bot.ask())
    third = await bot.ask()

    assert first == second == third is not None
    assert 1 == len(bot.api.posts)
    await bot.says("That one is being made already.")
    assert 2 == len(bot.chat.said)


async def test_the_problems_of_a_request_are_sent_to_the_chat(open_bot: Open) -> None:
    """All problems of a request are sent as sentences, nothing is paid, and there is no job."""
    bot = await open_bot(escape=html.escape)
    assert None is await bot.ask(url="<nowhere>", continue_at=-1)

    assert [] == bot.api.posts
    assert "The url must be an http(s) URL, not &#x27;&lt;nowhere&gt;&#x27;." in bot.chat.last
    assert "The point to continue at must be a finite number" in bot.chat.last


async def test_a_refusal_is_sent_to_the_chat(open_bot: Open) -> None:
    """The chat is told of a refusal, and the same message can be submitted again."""
    bot = await open_bot()
    bot.api.codes = [402]
    refused = await bot.ask()
    await bot.says("That did not work. This bot cannot make music right now")

    assert (None, True) == (refused, isinstance(await bot.ask(), ax.Job))
    assert 2 == len(bot.api.posts)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ax.ContentError("<b>", provider="kie"), "The content rules of the music service refuse this text or audio."),
        (ax.RateLimitError("<b>", provider="kie"), "Too many requests right now. Please try again in a few minutes."),
        (ax.ProviderDownError("<b>", provider="kie"), "The music service is down. Please try again later."),
        (ax.AuthError("sk-1", provider="kie"), "This bot cannot make music right now; its operator has to fix it."),
        (ax.UnsupportedError("musicgpt"), "The music service cannot do that."),
        (
            ax.RequestError([ax.Problem("title", "is long"), ax.Problem("url", "is private")]),
            "The title is long.\nThe url is private.",
        ),
    ],
)
def test_errors_have_texts_for_the_chat(error: ax.AudioextError, words: str) -> None:
    """An error's text for the chat says what the user can do, without vendor messages or secrets."""
    assert words == in_words(error)


async def test_a_store_error_is_raised_and_the_chat_is_informed(open_bot: Open) -> None:
    """A StoreError is raised to the bot, and the chat is told that it did not work."""
    store = ax.MemoryStore()
    bot = await open_bot(store=store)
    bot.chat.on_send = lambda: store.fail("the disk is full")
    with pytest.raises(ax.StoreError):
        await bot.ask()
    store.fail(None)

    assert [] == bot.api.posts
    assert bot.chat.last.startswith("That did not work. This bot cannot")


# --- chats that fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [30, 30.0, timedelta(seconds=30)])
async def test_a_chats_retry_after_delays_the_next_edit(open_bot: Open, wait: object) -> None:
    """A chat's retry_after delays the next edit, which then shows the latest state."""
    bot = await open_bot()
    bot.chat.faults = [ChatError("too many requests", wait)]
    await bot.ask()
    for _ in range(5):
        await bot.clock.advance(EVERY)
    assert (1, "Sending it off …") == (bot.chat.edits, bot.chat.last)
    await bot.clock.advance(2 * EVERY)
    await bot.says("In the queue, 0:3")


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_bot_without_a_limit_of_its_own_does_not_spin(open_bot: Open, *, is_closed: bool) -> None:
    """With `every=0` a message is looked at once a second, and a failing edit is not repeated at once."""
    looks = 0

    def escape(text: str) -> str:
        nonlocal looks
        looks += 1
        return text

    bot = await open_bot(every=0, escape=escape)
    job = await bot.ask()
    assert job is not None
    await bot.api.call_back("first")
    await bot.says("A first listen")
    bot.chat.is_closed = is_closed
    await bot.clock.advance(1)
    before = looks, bot.chat.edits
    for _ in range(100):
        await asyncio.sleep(0)

    assert before == (looks, bot.chat.edits)


async def test_a_chats_own_pace_is_neither_a_fault_nor_makes_edits_rarer(
    open_bot: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Short flood waits, which any busy bot gets, are no warnings, and the next edit comes after the usual pause."""
    bot = await open_bot()
    bot.chat.faults = [ChatError("too many requests", 1)] * 2
    await bot.ask()
    for _ in range(3):
        await bot.clock.advance(EVERY)
    await bot.says("In the queue")

    assert [] == [each for each in caplog.records if each.levelname == "WARNING"]


async def test_a_flood_wait_at_the_first_message_loses_no_request(open_bot: Open) -> None:
    """If a busy chat takes the first message only later, the request is submitted then; a long wait is the caller's."""
    bot = await open_bot()
    refusals: list[Exception] = [ChatError("too many requests", 5), ChatError("too many requests", 5)]

    def refuse() -> None:
        if refusals:
            raise refusals.pop(0)

    bot.chat.on_send = refuse
    asked = asyncio.ensure_future(bot.ask())
    await bot.clock.run(asked)
    assert asked.result() is not None
    assert (1, 1) == (len(bot.chat.said), len(bot.api.posts))

    refusals = [ChatError("too many requests", 600)]
    with pytest.raises(ChatError, match="too many"):
        await bot.ask(message=8)
    assert 1 == len(bot.api.posts)


async def test_a_chat_that_asks_for_no_wait_at_all_is_not_flooded(open_bot: Open) -> None:
    """A chat that refuses the first message again and again, with a wait of 0 s, is asked once a second at most."""
    bot, tries = await open_bot(), 0

    def refuse() -> None:
        nonlocal tries
        tries += 1
        raise ChatError("too many requests", 0)

    bot.chat.on_send = refuse
    asked = asyncio.gather(bot.ask(), return_exceptions=True)
    await bot.clock.run(asked)
    assert isinstance(asked.result()[0], ChatError)
    assert 1 < tries <= 31


async def test_the_last_word_is_retried_after_a_flood_wait(open_bot: Open) -> None:
    """A flood wait in the handler is not a failure: the handler is retried at the time that the chat asks for."""
    bot = await open_bot()
    job = await bot.ask()
    assert job is not None
    await bot.says("In the queue")
    bot.chat.faults = [ChatError("too many requests", 20)] * 8
    await bot.api.call_back("complete")
    for _ in range(12):
        await bot.clock.advance(20)
    await bot.says("Here it is:")

    assert () == job.record.handler_faults


async def test_the_last_word_is_a_new_message_where_the_old_one_is_gone(open_bot: Open) -> None:
    """If the progress message was deleted, the song is sent as a new message."""
    bot = await open_bot()
    await bot.ask()
    await bot.says("In the queue")
    bot.chat.faults = [ChatError("message to edit not found")] * 9
    await bot.api.call_back("complete")
    await bot.says("Here it is:")

    assert 2 == len(bot.chat.said)


async def test_the_last_word_is_an_edit_although_the_first_try_broke_off(open_bot: Open) -> None:
    """A last edit that fails on an idle connection is retried as an edit, without a second message."""
    bot = await open_bot()
    await bot.ask()
    await bot.says("In the queue")
    bot.chat.faults = [ChatError("Server disconnected")]
    await bot.api.call_back("complete")
    await bot.says("Here it is:")

    assert 1 == len(bot.chat.said)


async def test_edits_that_fail_become_rarer(open_bot: Open) -> None:
    """Edits that keep failing are tried less and less often."""
    bot = await open_bot()
    await bot.ask()
    await bot.says("In the queue")
    bot.chat.is_closed, before = True, bot.chat.edits
    for _ in range(60):
        await bot.clock.advance(EVERY)

    assert 6 >= bot.chat.edits - before


# --- restarts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_restart_goes_on_with_the_same_message(open_bot: Open, resumes: bool) -> None:
    """After a restart the next process finds the message in the job's meta; with `resume` it shows the time again."""
    store = ax.MemoryStore()
    first = await open_bot(store=store)
    await first.ask()
    await first.says("In the queue")
    await first.client.aclose()

    second = await open_bot(store=store, chat=first.chat)
    if resumes:
        await second.progress.resume()
        await second.clock.advance(EVERY)
        await second.says("In the queue, 0:05")
    second.api.is_done = True
    (job,) = [job async for job in second.client.jobs()]
    await job.refresh()
    await second.says("Here it is:")

    assert [100] == list(first.chat.said)


async def test_several_workers_show_one_message(open_bot: Open) -> None:
    """Whichever worker handles the end, the last word is shown in the message that another worker edits, and stays."""
    store = ax.MemoryStore()
    first = await open_bot(store=store)
    workers = [first, *[await open_bot(store=store, chat=first.chat) for _ in range(3)]]
    for message in range(4):
        await first.ask(message=message)
    await first.says("In the queue")
    first.api.is_done = True
    for job in [job async for job in first.client.jobs()]:
        await job.refresh()

    async def are_over() -> bool:
        return all(texts[-1].startswith("Here it is:") for texts in first.chat.said.values())

    await soon(are_over)
    for worker in workers:
        await worker.client.aclose()
    assert [[100, 101, 102, 103], True] == [list(first.chat.said), await are_over()]


async def test_other_jobs_are_left_alone(open_bot: Open) -> None:
    """Jobs of another bot or of none get no message, and no handler fails."""
    store = ax.MemoryStore()
    bot = await open_bot(store=store, name="discord")
    bot.api.is_done = True
    metas: list[dict[str, object]] = [
        {},
        {"bot": "telegram", "chat": 1, "message": 2, "progress": 3},
        {"bot": "discord"},
    ]
    for number, meta in enumerate(metas):
        job = await bot.client.extend(url=URL, model="V5", continue_at=2 + number, meta=meta)
        await job.refresh()
    await bot.client.aclose()

    assert {} == bot.chat.said
    assert 0 == bot.chat.edits


async def test_a_handler_of_ones_own_gets_the_asker(open_bot: Open) -> None:
    """A user's handler that sends the audio itself gets the chat from the same meta."""
    bot = await open_bot()
    found: list[Asker] = []
    done = asyncio.Event()

    @bot.client.on(ax.Stage.COMPLETE, meta=Asker)
    async def deliver(event: ax.StageEvent, asker: Asker) -> None:
        found.append(asker)
        done.set()

    await bot.ask()
    await bot.api.call_back("complete")
    async with asyncio.timeout(30):
        await done.wait()

    assert [Asker(bot="bot", chat=42, message=7, progress=100)] == found


def test_no_framework_is_imported() -> None:
    """No bot framework is imported unless the user imports it."""
    code = "import sys, audioext.bots\nprint(*{'aiogram', 'discord', 'telegram'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert "" == found.stdout.strip()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("client", 5),
        ("send", None),
        ("edit", "edit"),
        ("escape", 5),
        ("name", 5),
        ("texts", {}),
        ("every", "3"),
        ("every", -1),
        ("expected", 0),
    ],
)
def test_progress_messages_are_told_what_is_wrong(name: str, wrong: Any) -> None:
    """A wrong argument is refused when the messages are set up, not in a handler while a song is paid."""
    given: dict[str, Any] = {"client": ax.Client(ax.Kie("key")), "send": print, "edit": print, name: wrong}
    with pytest.raises(ax.RequestError, match=f"{name}: must be"):
        ProgressMessages(given.pop("client"), **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"chat": None}, "chat: must be an int or a str"),
        ({"message": [1]}, "message: must be an int or a str"),
        ({"meta": [1]}, "meta: must be a mapping"),
        ({"chat": 7}, "the result of send: must be an int or a str, the id of a chat or of a message, not None"),
    ],
)
async def test_what_names_no_message_is_refused_before_a_song_is_paid(given: dict[str, Any], says: str) -> None:
    """An id of a wrong type, also the result of a `send` that returns nothing, raises: no message could be edited."""

    async def send(_: int | str, __: str) -> Any:
        return None

    async with serve_api() as api:
        client = ax.Client(api.provider())
        progress = ProgressMessages(client, send=send, edit=send)  # type: ignore[arg-type]  # wrong on purpose
        async with client:
            with pytest.raises(ax.RequestError, match=says):
                await progress.submit(ax.Extend(audio_id="x", model="V5"), **{"chat": 1, "message": 2, **given})

        assert [] == api.posts
