"""Whether all that a client needs is there and works; what the check sends is neither stored nor paid."""

from __future__ import annotations

import asyncio
import errno
import platform
import shutil
import sqlite3
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from audioext.check.account import look_at_accounts
from audioext.check.reach import Reach
from audioext.check.report import CheckLine, CheckReport, failed, ok, warning
from audioext.errors import ConfigError, StoreError
from audioext.parts import Parts
from audioext.providers.base import Provider
from audioext.stores.memory import MemoryStore
from audioext.stores.sqlite import SqliteStore
from audioext.version import __version__

__all__ = ["CheckLine", "CheckReport", "check_parts"]

ANSWER_SECONDS = {"VIDGO_API_KEY": 10.0}
"""How long a vendor waits for the answer to a webhook: docs.vidgo.ai/api-manual/task-management/webhooks."""
LONGEST_ANSWER_SECONDS = 15.0  # docs.kie.ai and docs.sunoapi.org, callbacks; MusicGPT's page does not say
MEND_STORE = "mend that: without a store nothing is submitted, and webhooks are put off"
LEAST_FREE_BYTES = 100_000_000
_PACKAGES = ("aiohttp", "attrs", "cattrs", "msgspec", "apsw", "redis")


async def check_parts(parts: Parts) -> CheckReport:
    """Check the parts of a client; if they are not open they are opened for that, do no other work, and are closed.

    Raises:
        ConfigError: they were closed before.
    """
    if parts.is_closed:
        raise ConfigError("the client is closed, and opened once: make a new one for a check")
    if parts.is_open:
        return CheckReport((*await _look(parts), _versions()))
    lines = await _make_way(parts)
    try:
        await parts.open(is_working=False)
    except (StoreError, ConfigError) as error:
        is_store = isinstance(error, StoreError)
        lines.append(failed("store", str(error), MEND_STORE) if is_store else failed("listen", str(error), ""))
        lines += await look_at_accounts(parts)
        await parts.transport.aclose()
    else:
        try:
            lines += await _look(parts)
        finally:
            await parts.aclose()
    return CheckReport((*lines, _versions()))


async def _make_way(parts: Parts) -> list[CheckLine]:
    """Leave the address to whoever listens there now: it is the receiver that the check is about."""
    if parts.address is None or not parts.address[1]:
        return []
    host, port = parts.address
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return []  # which opening says better
        parts.address = None
        return [ok("listen", f"somebody listens at {host}:{port}; the check goes there")]
    server.close()
    return []


async def _look(parts: Parts) -> list[CheckLine]:
    settings, url = parts.settings, parts.public_url
    callers = [each for each in settings.providers.values() if each.info.has_key]
    if url is None:
        reach = [ok("public_url", "there is none: the status is polled")]
    else:
        seen = Reach(
            url=url,
            secret=parts.secrets[0],
            clock=settings.clock,
            is_local=bool(callers) and all(map(_is_local, callers)),
            limit=min(
                (ANSWER_SECONDS.get(each.info.key_variable, LONGEST_ANSWER_SECONDS) for each in callers), default=10.0
            ),
            trust_env=settings.trust_env,
        )
        reach = await seen.look()
    return [*reach, *await look_at_accounts(parts), *await _store(parts)]


def _is_local(provider: Provider) -> bool:
    """Whether the API is a stand-in on this machine, such as a sandbox."""
    return provider.info.base_url.host in {"127.0.0.1", "localhost", "::1"}


async def _store(parts: Parts) -> list[CheckLine]:
    store = parts.settings.store
    if isinstance(store, MemoryStore):
        seen, advice = "jobs are kept in memory: they end with the process", "give store=, such as sqlite:///jobs.db"
        return [warning("store", seen, advice)]
    try:
        await store.reschedule("check", "polls", at=parts.settings.clock.now())  # writes, but there is no such job
        warnings = await store.warnings()
    except StoreError as error:
        return [failed("store", str(error), MEND_STORE)]
    lines = [warning("store", each, "") for each in warnings]
    if isinstance(store, SqliteStore):
        free = _free(store)
        if free < LEAST_FREE_BYTES:
            lines.append(warning("store", f"{free // 1_000_000} MB are left on its disk", "free some disk space"))
    return lines or [ok("store", "it can be written")]


def _free(store: SqliteStore) -> int:
    return shutil.disk_usage(Path(store.path).absolute().parent).free


def _versions() -> CheckLine:
    found = [f"audioext {__version__}", f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ok("versions", ", ".join(found))
