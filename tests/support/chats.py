"""Fakes of the chat APIs of Telegram and Discord: the few calls that a bot needs, on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field
from pydantic import BaseModel

NOW = "2026-11-21T12:00:00+00:00"
EVENT, IDENTIFY, HELLO = 0, 2, 10
"""Operations of Discord's gateway: discord.com/developers/docs/topics/opcodes-and-status-codes."""


@define(eq=False)
class ChatApi:
    """A chat: the texts of each message, the files that were sent, and faults for the next edits."""

    voice: bytes
    """The audio that is attached to a message."""
    texts: dict[int, list[str]] = field(factory=dict)
    files: list[tuple[str, bytes]] = field(factory=list)
    calls: list[str] = field(factory=list)
    faults: list[web.Response] = field(factory=list)
    base: str = ""

    def new(self, text: str) -> int:
        """Create a message and return its id."""
        number = 100 + len(self.texts) + len(self.files)
        if text:
            self.texts[number] = [text]
        return number

    async def give_voice(self, _: web.Request) -> web.Response:
        """Return the audio of a message."""
        return web.Response(body=self.voice)

    async def keep_files(self, request: web.Request) -> dict[str, str]:
        """Keep the files of a form, and return its other fields."""
        form = await request.post()
        for value in form.values():
            if isinstance(value, web.FileField):
                self.files.append((value.filename, value.file.read()))
        return {name: value for name, value in form.items() if isinstance(value, str)}


@contextmanager
def aiogram_builds_when_used() -> Iterator[None]:
    """Import aiogram in this context: a model is then built on first use, where `import aiogram` builds hundreds.

    That takes four fifths of the import's many seconds. aiogram names what its annotations mean only in these builds.
    """
    build, meanings = BaseModel.model_rebuild, dict[str, Any]()

    def later(_: type[BaseModel], /, *, _types_namespace: dict[str, Any] | None = None, **__: Any) -> None:
        meanings.update(_types_namespace or {})

    def now(model: type[BaseModel], /, **options: Any) -> bool | None:
        if model.__module__.startswith("aiogram."):
            options["_types_namespace"] = meanings
        return build.__func__(model, **options)  # type: ignore[attr-defined, no-any-return]  # a class method

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "model_rebuild", classmethod(later))
        import aiogram  # noqa: F401, PLC0415 - see above

        patch.setattr(BaseModel, "model_rebuild", classmethod(now))
        yield


# --- Telegram: core.telegram.org/bots/api -----------------------------------------------------------------------


async def telegram_call(api: ChatApi, request: web.Request) -> web.Response:
    """Answer one method of the Bot API."""
    method = request.match_info["method"]
    api.calls.append(method)
    fields = await api.keep_files(request)
    message = {"message_id": 0, "date": 1, "chat": {"id": 42, "type": "private"}, "text": fields.get("text", "")}
    if method == "getFile":
        return _ok({"file_id": "f", "file_unique_id": "u", "file_path": "voice/file_0.oga"})
    if method == "editMessageText":
        number = int(fields["message_id"])
        if api.faults:
            return api.faults.pop(0)
        if api.texts[number][-1] == fields["text"]:
            return web.json_response(
                {"ok": False, "error_code": 400, "description": "Bad Request: message is not modified"}, status=400
            )
        api.texts[number].append(fields["text"])
        return _ok({**message, "message_id": number})
    return _ok({**message, "message_id": api.new(fields.get("text", ""))})


def _ok(result: object) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def telegram_flood(seconds: int) -> web.Response:
    """Return Telegram's answer to a client that edits too often."""
    body = {"ok": False, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": seconds}}
    return web.json_response(body, status=429)


def telegram_voice(number: int, *, seconds: int) -> dict[str, Any]:
    """Return the update of a voice message."""
    chat = {"id": 42, "type": "private"}
    voice = {"file_id": "f", "file_unique_id": "u", "duration": seconds}
    return {"update_id": number, "message": {"message_id": number, "date": 1, "chat": chat, "voice": voice}}


# --- Discord: discord.com/developers/docs -----------------------------------------------------------------------


@define(eq=False)
class Gateway:
    """Discord's websocket: it sends hello, accepts a bot, and sends it events."""

    api: ChatApi
    socket: web.WebSocketResponse | None = None
    is_ready: asyncio.Event = field(factory=asyncio.Event)
    events: int = 0

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Keep one bot connected."""
        self.socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": HELLO, "d": {"heartbeat_interval": 45_000}})
        async for message in socket:
            if json.loads(message.data)["op"] == IDENTIFY:
                session = {"session_id": "s", "resume_gateway_url": f"ws{self.api.base[4:]}/gateway"}
                await self.send(
                    "READY",
                    {"v": 10, "user": person(1), "guilds": [], "application": {"id": "1", "flags": 0}, **session},
                )
                self.is_ready.set()
        return socket

    async def send(self, name: str, data: dict[str, Any]) -> None:
        """Send an event."""
        assert self.socket is not None
        self.events += 1
        await self.socket.send_json({"op": EVENT, "t": name, "s": self.events, "d": data})

    async def say(self, number: int, text: str) -> None:
        """Let a user write a message with audio attached."""
        file = {
            "id": "5",
            "filename": "voice.wav",
            "size": len(self.api.voice),
            "url": f"{self.api.base}/voice",
            "proxy_url": "",
        }
        await self.send("MESSAGE_CREATE", discord_message(number, text, author=2, attachments=[file]))


def person(number: int) -> dict[str, Any]:
    """Return a user."""
    return {"id": str(number), "username": f"user{number}", "discriminator": "0", "avatar": None, "bot": number == 1}


def discord_message(number: int, text: str, *, author: int = 1, **fields: object) -> dict[str, Any]:
    """Return a message of a direct channel."""
    empty: dict[str, Any] = {name: [] for name in ("mentions", "mention_roles", "attachments", "embeds", "components")}
    flags = {"tts": False, "mention_everyone": False, "pinned": False, "type": 0, "flags": 0}
    times = {"timestamp": NOW, "edited_timestamp": None}
    return {
        **empty,
        **flags,
        **times,
        "id": str(number),
        "channel_id": "42",
        "author": person(author),
        "content": text,
        **fields,
    }


def _plain_json(value: object) -> web.Response:
    """Return JSON labelled as Discord does, without a charset: discord.py accepts no other."""
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


async def discord_send(api: ChatApi, request: web.Request) -> web.Response:
    """Handle a new message, with files or without."""
    api.calls.append("send")
    if request.content_type == "application/json":
        text = (await request.json())["content"]
    else:
        text = json.loads((await api.keep_files(request))["payload_json"]).get("content") or ""
    return _plain_json(discord_message(api.new(text), text))


async def discord_edit(api: ChatApi, request: web.Request) -> web.Response:
    """Handle an edit of a message."""
    api.calls.append("edit")
    if api.faults:
        return api.faults.pop(0)
    number, text = int(request.match_info["message"]), (await request.json())["content"]
    api.texts[number].append(text)
    return _plain_json(discord_message(number, text))


# --- both -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serve_telegram(voice: bytes) -> AsyncIterator[ChatApi]:
    """Serve Telegram's API on loopback."""
    api = ChatApi(voice)
    app = web.Application()
    app.router.add_post("/bot{token}/{method}", partial(telegram_call, api))
    app.router.add_get("/file/bot{token}/{path:.*}", api.give_voice)
    async with _serving(app, api):
        yield api


@asynccontextmanager
async def serve_discord(voice: bytes) -> AsyncIterator[Gateway]:
    """Serve Discord's API and its gateway on loopback."""
    api = ChatApi(voice)
    gateway = Gateway(api)

    async def me(_: web.Request) -> web.Response:
        return _plain_json(person(1))

    async def application(_: web.Request) -> web.Response:
        facts = {"id": "1", "name": "bot", "icon": None, "description": "", "flags": 0, "verify_key": "0"}
        return _plain_json({**facts, "bot_public": True, "bot_require_code_grant": False, "owner": person(2)})

    app = web.Application()
    app.router.add_get("/users/@me", me)
    app.router.add_get("/oauth2/applications/@me", application)
    app.router.add_get("/gateway", gateway.serve)
    app.router.add_get("/voice", api.give_voice)
    app.router.add_post("/channels/42/messages", partial(discord_send, api))
    app.router.add_patch("/channels/42/messages/{message}", partial(discord_edit, api))
    async with _serving(app, api):
        yield gateway


@asynccontextmanager
async def _serving(app: web.Application, api: ChatApi) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
    finally:
        await runner.cleanup()
