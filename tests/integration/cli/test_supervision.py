"""`audioext listen` under a service manager: the datagrams it sends to a real socket."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audioext.cli.listening import notify, supervised, watchdog_seconds
from tests.integration.cli.conftest import HOOKS, PATIENCE_SECONDS, Serve

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the service manager's socket is a Unix one")


@pytest.fixture
def manager(folder: Path) -> Iterator[socket.socket]:
    """Return a socket on which a service manager listens."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.settimeout(PATIENCE_SECONDS)
        listening.bind(str(folder / "notify"))
        yield listening


def test_a_listener_says_when_it_is_ready_alive_and_stopping(
    serve: Serve, folder: Path, manager: socket.socket
) -> None:
    """READY is sent when it listens, WATCHDOG repeatedly, and STOPPING at SIGTERM before a clean exit."""
    process = serve(
        "listen",
        *HOOKS,
        "--store",
        "memory://",
        env={"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "100000"},
    )
    ready = manager.recv(1_000).decode()
    beats = {manager.recv(1_000), manager.recv(1_000)}
    process.send_signal(signal.SIGTERM)
    last = manager.recv(1_000)
    while last == b"WATCHDOG=1":
        last = manager.recv(1_000)

    assert ready.startswith("READY=1\nSTATUS=listening for http://127.0.0.1:")
    assert {b"WATCHDOG=1"} == beats
    assert b"STOPPING=1" == last
    assert 0 == process.wait(PATIENCE_SECONDS)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
async def test_an_abstract_address_is_written_with_an_at_sign(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """`@name` is an abstract socket, a zero byte and the name, as in systemd's manual."""
    name = f"audioext-{folder.name}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        async with supervised("well"):
            await asyncio.sleep(0)
        found = [listening.recv(100), listening.recv(100)]

    assert [b"READY=1\nSTATUS=well", b"STOPPING=1"] == found


def test_a_service_manager_that_is_gone_is_only_warned_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the manager's socket rejects a message a warning is logged; without a socket nothing is sent."""
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "gone"))
    notify("READY=1")

    (message,) = [record.getMessage() for record in caplog.records]
    assert "could not be sent 'READY=1'" in message


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("30000000", None, 30.0), ("", None, None), ("0", None, None), ("x", None, None), ("30000000", "1", None)],
)
def test_the_watchdog_is_for_one_process(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    """WATCHDOG_USEC counts without WATCHDOG_PID, and is ignored with another process's id."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    else:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)

    assert seconds == watchdog_seconds()
