"""Connections without answers to earlier calls, and bodies that are sent once."""

from __future__ import annotations

from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

# Short, because a server may close an idle connection just as a submit is sent, and then its outcome is unknown.
KEEPALIVE_SECONDS = 2.0
MOST_CONNECTIONS = 200


class Connector(aiohttp.TCPConnector):
    """A connector whose calls never get an answer to an earlier call.

    aiohttp reuses a connection on which a second answer, or a 408, has come while it was idle, and returns that as the
    answer to the next request.
    """

    def __init__(self, resolver: AbstractResolver | None) -> None:
        """Keep idle connections for `KEEPALIVE_SECONDS`."""
        super().__init__(limit=MOST_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, resolver=resolver)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> Connection:
        """Return a connection on which nothing has been received since its last answer.

        A new one is not closed whatever has come: a server that refuses at once would be called again without end.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or protocol not in self._used or not protocol.should_close:
                if protocol is not None:
                    self._used.add(protocol)
                return connection
            connection.close()


class SentOnce(aiohttp.Payload):
    """A request's body that is never sent twice, whatever a user's own session does after a failure."""

    is_sent = False
    """Whether it may have been sent in part."""

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body, or raise ClientError: then the server gets a call without its body."""
        if self.is_sent:
            message = "nothing is sent twice, but the session= of this client tried to"
            raise aiohttp.ClientError(message)
        self.is_sent = True
        await super().write_with_length(writer, content_length)


class Content(SentOnce, aiohttp.BytesPayload):
    """A body of bytes."""
