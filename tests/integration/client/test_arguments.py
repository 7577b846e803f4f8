"""A wrong argument of any method is an error of ours that names it; nothing is sent, and nothing is ignored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import audioext as ax
from tests.integration.client.conftest import MakeClient
from tests.support.api import Api


class Unprintable:
    """An object whose `repr` raises, like a closed handle of some libraries."""

    def __repr__(self) -> str:
        """Raise."""
        raise RuntimeError("it is closed")


class Told:
    """A progress callback whose `__call__` is async: nobody would await it."""

    async def __call__(self, so_far: int, in_all: int) -> None:
        """Do nothing."""


VIDGO = ax.Vidgo("key")


@pytest.mark.parametrize("fallback", [5, True, VIDGO, [["vidgo"]], [VIDGO], b"vidgo", Unprintable()])
async def test_a_fallback_is_a_list_of_names(fallback: Any, api: Api, open_client: MakeClient) -> None:
    """A `fallback` that is no list of names raises an error of ours, not a TypeError from inside."""
    client = await open_client()
    with pytest.raises(ax.AudioextError, match=r"fallback: must be a list of names|no provider named"):
        await client.extend(url="https://x.test/a.mp3", model="V5", continue_at=1, fallback=fallback)

    assert [] == api.posts


async def test_progress_with_an_async_call_is_refused(api: Api, open_client: MakeClient) -> None:
    """A `progress` object with an async `__call__` is refused like an async function."""
    client = await open_client()
    with pytest.raises(ax.RequestError, match="progress: must be a plain function"):
        await client.extend(audio_id="x", model="V5", progress=Told())  # type: ignore[arg-type]  # wrong on purpose

    assert [] == api.posts


async def every(things: Any) -> list[Any]:
    """Return all items of an asynchronous iterator."""
    return [thing async for thing in things]


LOOKS: dict[str, Callable[[ax.Client, Any], Awaitable[object]]] = {
    "newest_first": lambda client, wrong: every(client.jobs(newest_first=wrong)),
    "ref": lambda client, wrong: every(client.deliveries(wrong)),
}


@pytest.mark.parametrize("wrong", [5, [], object(), Unprintable()])
@pytest.mark.parametrize("name", LOOKS)
async def test_a_listing_ignores_no_wrong_argument(name: str, wrong: Any, open_client: MakeClient) -> None:
    """A wrong `newest_first` or `ref` is refused: it would list the wrong things, or nothing."""
    client = await open_client()
    with pytest.raises(ax.RequestError, match=f"{name}: must be"):
        await LOOKS[name](client, wrong)


@pytest.mark.parametrize("stage", ["complete", 4, None, Unprintable()])
async def test_the_event_of_no_stage_is_refused(stage: Any, open_client: MakeClient) -> None:
    """`job.event("complete")` is refused as `job.wait("complete")` is; it would be `None` for ever."""
    client = await open_client()
    job = await client.extend(audio_id="x", model="V5")
    with pytest.raises(ax.RequestError, match=r"stage: must be one like Stage\.FIRST"):
        job.event(stage)
    with pytest.raises(ax.RequestError, match=r"stage: must be one like Stage\.FIRST"):
        await job.wait(stage)
    with pytest.raises(ax.ConfigError, match="handlers are for TEXT, FIRST and COMPLETE"):
        client.on(stage)


async def test_a_handler_that_cannot_be_shown_is_refused(open_client: MakeClient) -> None:
    """The error about a handler does not depend on the handler's own `repr`."""
    client = await open_client()
    with pytest.raises(ax.ConfigError, match="must be an async function"):
        client.on_failure(Unprintable())  # type: ignore[call-overload]  # wrong on purpose


async def test_a_class_is_no_folder() -> None:
    """`save(Path)`, a class in place of a path, is refused."""
    song = ax.Song(ref="r", provider="kie", task_id=None, tracks=())
    with pytest.raises(ax.RequestError, match="folder: must be the path of a folder"):
        await song.save(Path)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_misspelt_argument_is_answered_with_the_one_that_was_meant(open_client: MakeClient) -> None:
    """A misspelt keyword of a submit raises a `TypeError` with the right one, as the command line has it."""
    client = await open_client()

    for call in (client.extend, client.add_instrumental):
        with pytest.raises(TypeError, match="has no field modle; did you mean model"):
            await call(modle="V5")  # type: ignore[call-arg]  # wrong on purpose


async def test_a_mount_that_cannot_work_is_refused(open_client: MakeClient) -> None:
    """A wrong prefix, an application of another framework, and one that runs already are errors of ours."""
    from fastapi import FastAPI  # noqa: PLC0415 - it takes long to load, which not every worker should pay

    receiver, running = (await open_client(public_url="https://hooks.test", listen=None)).receiver, web.Application()
    prefixes: tuple[Any, ...] = (5, None, b"/a", "audio", "/a{", "/{}", "/{a}/{a}", Unprintable())
    for prefix in prefixes:
        with pytest.raises(ax.ConfigError, match="prefix"):
            receiver.add_to(web.Application(), prefix)
    others: tuple[Any, ...] = (None, "app", FastAPI(), running.router, web.Application)
    for app in others:
        with pytest.raises(ax.ConfigError, match=r"app must be an aiohttp web\.Application.*receiver\.asgi"):
            receiver.add_to(app, "/audio")
    running.freeze()
    with pytest.raises(ax.ConfigError, match=r"cannot add the routes under the prefix '/audio'.*frozen"):
        receiver.add_to(running, "/audio")
