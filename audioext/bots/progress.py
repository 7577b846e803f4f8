"""The progress messages of a bot, one per job, which follow their jobs also after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Unpack

import msgspec
from attrs import frozen

from audioext.bots.message import ProgressMessage
from audioext.bots.patience import LEAST_WAIT_SECONDS, waited_out
from audioext.bots.words import Texts, in_words
from audioext.client import Client
from audioext.errors import AudioextError, ProviderError, RequestError, UnsupportedError
from audioext.models import checks
from audioext.models.record import Verdict
from audioext.models.requests import Extend, ExtendOptions, Request
from audioext.models.results import Stage
from audioext.runtime.jobs import (
    LATER_STAGES,
    Failure,
    Job,
    JobExpiredError,
    StageEvent,
    StageTimeoutError,
    SubmitUnknownError,
)

_log = logging.getLogger("audioext.bots")

ChatId = int | str
Send = Callable[[ChatId, str], Awaitable[ChatId]]
"""Sends a text to a chat and returns the id of the message."""
Edit = Callable[[ChatId, ChatId, str], Awaitable[object]]
"""Replaces the text of a chat's message."""

LONGEST_TEXT = 2_000
"""The lowest limit: discord.com/developers/docs/resources/message#create-message; Telegram takes 4,096."""
ENDED_KEPT = 256
"""For how many ended jobs we remember the text of their message."""

_function = checks.must_be("a function", callable)
_id = checks.must_be(
    "an int or a str, the id of a chat or of a message",
    lambda value: isinstance(value, (int, str)) and not isinstance(value, bool),
)


@frozen(kw_only=True)
class Asker:
    """The origin of a job: the bot's name, the chat, the user's message, and the progress message.

    It is the job's meta, or part of it: `@client.on(ax.Stage.COMPLETE, meta=Asker)`.
    """

    bot: str
    chat: ChatId
    message: ChatId
    progress: ChatId


class ProgressMessages:
    """One message per job of a bot, edited as the job progresses; create it before the client is opened.

    `send(chat, text)` returns the id of the message, `edit(chat, message, text)` changes it. Both may raise: an error
    with `retry_after` is waited out, other errors make edits rarer, and the final text is sent as a new message if it
    cannot be edited in. A message is edited at most once in *every* seconds, with the latest state. *expected* is how
    long (seconds) a job takes if the provider does not say. *name* distinguishes bots that share a store. *escape*,
    such as `html.escape`, is for chats that parse markup; it is applied to links and to error texts.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        client: Client,
        *,
        send: Send,
        edit: Edit,
        name: str = "bot",
        texts: Texts | None = None,
        every: float = 3.0,
        expected: float = 180.0,
        escape: Callable[[str], str] = str,
    ) -> None:
        """Register the handlers that update the messages.

        Raises:
            RequestError: an argument has a wrong type.
        """
        checks.refuse_wrong(
            client=checks.made_as(Client, "an audioext.Client")(client),
            send=_function(send),
            edit=_function(edit),
            escape=_function(escape),
            name=checks.full_text(name),
            texts=None if texts is None else checks.made_as(Texts, "an audioext.bots.Texts")(texts),
            every=checks.from_on(0)(every),
            expected=checks.seconds(expected),
        )
        self.client = client
        self.name = name
        self.texts = texts if texts is not None else Texts()
        self._send, self._edit, self._escape = send, edit, escape
        self._every, self._expected = every, expected
        self._lines: dict[str, ProgressMessage] = {}
        self._ended: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        for stage in LATER_STAGES:
            client.on(stage)(self._tell)
        client.on_failure(self._tell)

    async def extend(
        self,
        *,
        chat: ChatId,
        message: ChatId,
        key: str | None = None,
        meta: Mapping[str, object] | None = None,
        fallback: Sequence[str] = (),
        **options: Unpack[ExtendOptions],
    ) -> Job | None:
        """Submit an `Extend` of these fields; see `submit`."""
        request = Extend.draft(**options)
        return await self.submit(request, chat=chat, message=message, key=key, meta=meta, fallback=fallback)

    async def submit(  # noqa: PLR0913 - as above
        self,
        request: Request,
        *,
        chat: ChatId,
        message: ChatId,
        key: str | None = None,
        meta: Mapping[str, object] | None = None,
        fallback: Sequence[str] = (),
    ) -> Job | None:
        """Send a progress message to *chat*, submit *request* for the user's *message*, and return the job.

        The two ids make the key, so the same message is paid for once; a message that asks for several jobs needs a
        *key* for each. If the request is wrong or refused, the chat is told why, and `None` is returned.

        Raises:
            StoreError: the job could not be stored; nothing was sent, and the chat was told that it did not work.
            ConfigError: the client cannot submit; the chat was told, too.
            RequestError: an id has a wrong type, also one that `send` returned, or *meta* is not a mapping.
        """
        checks.refuse_wrong(chat=_id(chat), message=_id(message), meta=None if meta is None else checks.mapping(meta))
        key = key if key is not None else f"{self.name}:{chat}:{message}"
        with suppress(RequestError):  # there is no such job yet
            return await self.client.job(key=key)
        progress = await waited_out(self.client.clock, lambda: self._send(chat, self.texts.waiting))
        checks.refuse_wrong(**{"the result of send": _id(progress)})
        asker = Asker(bot=self.name, chat=chat, message=message, progress=progress)
        noted = {**(meta or {}), **msgspec.to_builtins(asker)}
        try:
            job = await self.client.submit(request, key=key, meta=noted, fallback=fallback)
        except AudioextError as error:
            said = self.texts.failed.format(why=self._escape(in_words(error)), clock="", links="")
            # The client was closed during the POST: the job may still complete.
            await self._say(asker, self.texts.silent if isinstance(error, SubmitUnknownError) else said)
            if not isinstance(error, (RequestError, UnsupportedError, ProviderError)):
                raise
            _log.warning("chat %s: no job for message %s: %s", chat, message, error)
            return None
        if job.is_new:
            self._follow(job, asker)
        else:  # the same message came twice at the same time
            await self._say(asker, self.texts.again)
        return job

    async def resume(self) -> None:
        """Restart the clocks in the messages of an earlier process's open jobs; stages are shown without it, too."""
        async for job in self.client.jobs(open=True, meta={"bot": self.name}):
            asker = self._asker(job)
            if asker is not None and job.ref not in self._lines:
                self._follow(job, asker)

    def _asker(self, job: Job) -> Asker | None:
        """Return the `Asker` in the meta of *job*, `None` if the job is not this bot's."""
        try:
            asker = msgspec.convert(job.meta, Asker)
        except msgspec.ValidationError:
            return None
        return asker if asker.bot == self.name else None

    def _line(self, asker: Asker) -> ProgressMessage:
        return ProgressMessage(
            edit=lambda text: self._edit(asker.chat, asker.progress, text[:LONGEST_TEXT]),
            send=lambda text: self._send(asker.chat, text[:LONGEST_TEXT]),
            clock=self.client.clock,
            every=self._every,
        )

    async def _say(self, asker: Asker, text: str) -> None:
        """Show the final text of a message whose end no handler is called for; an error is only logged."""
        try:
            await self._line(asker).finish(text)
        except Exception as error:  # noqa: BLE001 - a framework may raise anything
            _log.warning("chat %s: %r could not be sent: %s", asker.chat, text, error)

    async def _tell(self, news: StageEvent | Failure) -> None:
        """Show a stage or a failure; as a handler, it is called again if the final text does not get through."""
        job = news.job
        asker = self._asker(job)
        if asker is None:
            return
        line = self._lines.get(job.ref) or self._line(asker)
        if isinstance(news, Failure) or news.stage is Stage.COMPLETE:
            await line.finish(self._text(job))
        elif news.is_latest:
            await line.show(lambda: self._text(job))

    def _text(self, job: Job) -> str:
        texts, failure = self.texts, job.failure
        if failure is not None:
            said = texts.failed
        elif job.verdict is Verdict.COMPLETE:
            said = texts.complete
        else:
            said = {Stage.TEXT: texts.text, Stage.FIRST: texts.first}.get(job.stage or Stage.SUBMITTED, texts.submitted)
        links = "\n".join(self._escape(track.audio_url) for track in job.tracks if track.audio_url is not None)
        passed = self.client.clock.now() - job.created_at.timestamp()
        return said.format(
            links=links,
            why=self._escape(in_words(failure or job.record)),
            clock=f"{_minutes(passed)} of about {_minutes(job.record.eta or self._expected)}",
        ).rstrip()

    def _follow(self, job: Job, asker: Asker) -> None:
        self._lines[job.ref] = self._line(asker)
        task = asyncio.create_task(self._run(job, asker), name=f"audioext progress of {job.ref}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Job, asker: Asker) -> None:
        """Edit the message of *job* until it ends; handlers show the final text, except for an end without a call."""
        line, over = self._lines[job.ref], asyncio.Event()
        ended = asyncio.ensure_future(_end_of(job))
        ended.add_done_callback(lambda _: over.set())
        try:
            while not over.is_set():
                await line.show(lambda: self._text(job))
                await self.client.clock.wait_for(over, max(self._every, LEAST_WAIT_SECONDS))
            if not await ended:
                await self._say(asker, self.texts.silent)
            elif job.record.is_final:
                await line.confirm(self._text(job))
        finally:
            ended.cancel()
            self._ended.append(job.ref)  # kept, so that a handler that runs later sees that the final text is shown
            if len(self._ended) > ENDED_KEPT:
                self._lines.pop(self._ended.popleft(), None)


async def _end_of(job: Job) -> bool:
    """Wait until *job* ends or the client is closed; return whether a handler shows the final text."""
    while True:
        try:
            await job.result()
        except (JobExpiredError, SubmitUnknownError):
            return False
        except StageTimeoutError:  # the client's `wait_timeout`: the job lives on
            continue
        except AudioextError:  # it failed, or the client was closed
            pass
        return True


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes}:{rest:02}"
