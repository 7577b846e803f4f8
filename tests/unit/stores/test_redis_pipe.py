"""Calls that the server refuses at first keep their order, and do not disturb others."""

from __future__ import annotations

import asyncio

import redis.asyncio

from audioext.stores._redis_scripts import CLAIM
from audioext.stores._redis_server import Pipe, read_url
from tests.unit.stores.journals import create, held, make_webhook
from tests.unit.stores.test_redis import Local, append, local, plain  # noqa: F401 - fixtures

MANY = 60


async def test_appends_keep_their_order_where_the_server_forgot_the_scripts(
    local: Local,  # noqa: F811 - a fixture
    plain: redis.asyncio.Redis,  # noqa: F811 - a fixture
) -> None:
    """If the server lost the scripts, as after a restart, waiting webhooks of one job are stored in their order."""
    store = await local("forgotten")
    await create(store, "ref")
    await plain.script_flush()

    sent = [make_webhook(number) for number in range(MANY)]
    await asyncio.gather(*(append(store, entry) for entry in sent))

    assert [entry.id for entry in sent] == [entry.id for entry in (await held(store, "ref")).entries[1:]]


async def test_a_call_that_is_put_off_makes_no_other_run_again() -> None:
    """If the server refuses a call, as while a slot moves, the calls behind it are answered and not run twice."""
    gets, claims = 0, 0

    async def words(reader: asyncio.StreamReader) -> list[bytes]:
        count = int((await reader.readline())[1:])
        sizes = [(int((await reader.readline())[1:]), await reader.readline()) for _ in range(count)]
        return [word.strip() for _, word in sizes]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal gets, claims
        try:
            while not reader.at_eof():
                name = (await words(reader))[0].upper()
                if name == b"GET":
                    gets += 1
                    writer.write(b"-ASK 1 127.0.0.1:1\r\n" if gets == 1 else b"$-1\r\n")
                elif name in {b"EVAL", b"EVALSHA"}:
                    claims += 1
                    writer.write(b"*1\r\n$3\r\nr%02d\r\n" % claims)
                else:
                    writer.write(b"-ERR no cluster\r\n" if name == b"CLUSTER" else b"+OK\r\n")
        except ValueError:  # the client hung up
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pipe = Pipe(read_url(f"redis://127.0.0.1:{port}/0?patience=5"))
        found, claimed = await asyncio.gather(pipe.run("GET", "k"), pipe.do(CLAIM, "polls", 1.0, 2.0, 1))
        await pipe.aclose()

    assert (2, 1) == (gets, claims)
    assert (None, [b"r01"]) == (found, claimed)
