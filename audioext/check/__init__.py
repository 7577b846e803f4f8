"""Whether all that a client needs is there and works; what the check sends is neither stored nor paid."""

from __future__ import annotations

import asyncio
import errno
import platform
import sqlite3
import time
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import metadata

from audioext.check.reach import CheckLine, CheckReport, Reach, failed, ok, warning
from audioext.errors import AudioextError, AuthError, ConfigError, StoreError
from audioext.http.messages import Headers
from audioext.parts import Parts
from audioext.providers.base import Credits, Provider
from audioext.stores.memory import MemoryStore
from audioext.version import __version__

__all__ = ["CheckLine", "CheckReport", "check_parts"]

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
ANSWER_SECONDS = {"VIDGO_API_KEY": 10.0}
"""How long a vendor waits for the answer to a webhook: docs.vidgo.ai/api-manual/task-management/webhooks."""
LONGEST_ANSWER_SECONDS = 15.0  # docs.kie.ai and docs.sunoapi.org, callbacks; MusicGPT's page does not say
MEND_STORE = "mend that: without a store nothing is submitted, and webhooks are put off"
CALL_SECONDS = 15.0
SKEW_SECONDS = 5.0
"""Beyond this processes that share a store may disturb each other's claims; `Date` shows whole seconds."""
MAX_SKEW_SECONDS = 300.0  # docs.kie.ai: a signature's time may be off by so much; see `Kie(webhook_tolerance=)`
_PACKAGES = ("aiohttp", "attrs", "cattrs", "msgspec", "apsw", "redis")


async def check_parts(parts: Parts) -> CheckReport:
    """Check the parts of a client; if they are not open they are opened for that, do no other work, and are closed."""
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
        lines += await _accounts(parts)
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
            is_local=bool(callers) and all(each.info.base_url.host in LOOPBACK_HOSTS for each in callers),
            limit=min(
                (ANSWER_SECONDS.get(each.info.key_variable, LONGEST_ANSWER_SECONDS) for each in callers), default=10.0
            ),
            trust_env=settings.trust_env,
        )
        reach = await seen.look()
    return [*reach, *await _accounts(parts), *await _store(parts)]


async def _accounts(parts: Parts) -> list[CheckLine]:
    """Return a line for each provider's key, and one for the clock where a provider told the time."""
    asked = await asyncio.gather(*(_key(parts, each) for each in parts.settings.providers.values()))
    skews = [skew for _, skew in asked if skew is not None]
    return [line for line, _ in asked] + ([_clock(min(skews, key=abs))] if skews else [])


async def _key(parts: Parts, provider: Provider) -> tuple[CheckLine, float | None]:
    """Return the line of a provider's key, and how many seconds its clock is ahead of ours."""
    info, name = provider.info, f"key of {provider.info.name}"
    if not info.has_key:
        seen = "there is none: nothing can be submitted, and no status asked for"
        return warning(name, seen, f"set {info.key_variable}, or pass api_key="), None
    if not isinstance(provider, Credits):
        return ok(name, "there is one; no call is known that would try it for nothing"), None
    clock, skew = parts.settings.clock, None
    try:
        before = clock.now()
        response = await parts.transport.send(provider.build_credits(), timeout=CALL_SECONDS)
        skew = _ahead(response.headers, before, clock.now())
        balance = provider.parse_credits(response)
    except AudioextError as error:
        advice = f"see whether {info.base_url} can be reached from here, and is the right base_url"
        if isinstance(error, AuthError):
            advice = (
                f"give the right key in {info.key_variable}; see the vendor's page of keys, and its list of addresses"
            )
        return failed(name, str(error), advice), skew
    seen = f"the key works; the balance is {balance:g} credits"
    return (ok(name, seen) if balance > 0 else warning(name, seen, "buy some")), skew


def _ahead(headers: Headers, before: float, after: float) -> float | None:
    """Return how far the answer's `Date` is from the time of the call, `None` without one; it names whole seconds."""
    try:
        date = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    shown = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    return min(0.0, shown - before + 1.0) or max(0.0, shown - after)


def _clock(skew: float) -> CheckLine:
    side = "behind" if skew > 0 else "ahead"
    if abs(skew) <= SKEW_SECONDS:
        shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return ok("clock", f"it shows what the provider's does: {shown}")
    seen, advice = f"this machine's clock is {abs(skew):.0f} s {side} of the provider's", "set it by NTP"
    if abs(skew) < MAX_SKEW_SECONDS:
        return warning("clock", seen, advice)
    return failed("clock", f"{seen}, so that signed webhooks are refused", advice)


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
    return [warning("store", each, "") for each in warnings] or [ok("store", "it can be written")]


def _versions() -> CheckLine:
    found = [f"audioext {__version__}", f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ok("versions", ", ".join(found))
