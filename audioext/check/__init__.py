"""Check that the public URL, keys, clock and store of a client work; no job is stored, and nothing is paid."""

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
from audioext.http.urls import is_loopback
from audioext.parts import Parts
from audioext.providers.base import Credits, Provider
from audioext.stores.memory import MemoryStore
from audioext.version import __version__

__all__ = ["CheckLine", "CheckReport", "check_parts"]

ANSWER_SECONDS = {"VIDGO_API_KEY": 10.0}
"""How long a vendor waits for our reply to a webhook: docs.vidgo.ai/api-manual/task-management/webhooks."""
LONGEST_ANSWER_SECONDS = 15.0  # docs.kie.ai and docs.sunoapi.org, callbacks; MusicGPT's page does not say
STORE_ADVICE = "fix that: without a store nothing is submitted, and webhooks get 503"
CALL_SECONDS = 15.0
SKEW_SECONDS = 5.0
"""With a larger skew, processes that share a store may take over each other's claims; `Date` has whole seconds."""
MAX_SKEW_SECONDS = 300.0  # docs.kie.ai: how far a signature's time may be off; see `Kie(webhook_tolerance=)`
_PACKAGES = ("aiohttp", "attrs", "cattrs", "msgspec", "apsw", "redis")


async def check_parts(parts: Parts) -> CheckReport:
    """Check the parts of a client; if they are not open, open them for the check alone, and close them after it."""
    if parts.state not in {"new", "open"}:
        raise ConfigError(f"the client is {parts.state}, and cannot be opened for the check: make a new one")
    if parts.is_open:
        return CheckReport((*await _look(parts), _versions()))
    lines = await _yield_address(parts)
    try:
        await parts.open(is_working=False)
    except (StoreError, ConfigError) as error:
        is_store = isinstance(error, StoreError)
        lines.append(failed("store", str(error), STORE_ADVICE) if is_store else failed("listen", str(error), ""))
        lines += await _accounts(parts)
        await parts.transport.aclose()
    else:
        try:
            lines += await _look(parts)
        finally:
            await parts.aclose()
    return CheckReport((*lines, _versions()))


async def _yield_address(parts: Parts) -> list[CheckLine]:
    """Say whether another process listens at our address; if so, do not open it: the check is about that receiver."""
    if parts.address is None or not parts.address[1]:
        return []
    host, port = parts.address
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return []  # opening the client raises a clearer error
        parts.address = None
        return [ok("listen", f"another process listens at {host}:{port}; the check goes there")]
    server.close()
    return [ok("listen", f"nothing listened at {host}:{port}: this check did, and has stopped")]


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
            is_local=bool(callers) and all(is_loopback(each.info.base_url.host) for each in callers),
            limit=min(
                (ANSWER_SECONDS.get(each.info.key_variable, LONGEST_ANSWER_SECONDS) for each in callers), default=10.0
            ),
            trust_env=settings.trust_env,
        )
        reach = await seen.look()
    return [*reach, *await _accounts(parts), *await _store(parts)]


async def _accounts(parts: Parts) -> list[CheckLine]:
    """Return a line for each provider's key, and one for the clock if an answer had a `Date`."""
    asked = await asyncio.gather(*(_key(parts, each) for each in parts.settings.providers.values()))
    skews = [skew for _, skew in asked if skew is not None]
    return [line for line, _ in asked] + ([_clock(min(skews, key=abs))] if skews else [])


async def _key(parts: Parts, provider: Provider) -> tuple[CheckLine, float | None]:
    """Return the line of a provider's key, and how many seconds the provider's clock is ahead of ours."""
    info, name = provider.info, f"key of {provider.info.name}"
    if not info.has_key:
        seen = "there is none: the client can neither submit nor poll"
        return warning(name, seen, f"set {info.key_variable}, or `api_key=` in code"), None
    if not isinstance(provider, Credits):
        return ok(name, "there is one; no known call tests it for free"), None
    clock, skew = parts.settings.clock, None
    try:
        before = clock.now()
        response = await parts.transport.send(provider.build_credits(), timeout=CALL_SECONDS)
        skew = _clock_skew(response.headers, before, clock.now())
        balance = provider.parse_credits(response)
    except AudioextError as error:
        advice = f"check that {info.base_url} is the right `base_url=`, and can be reached from here"
        if isinstance(error, AuthError):
            advice = f"set the right key in {info.key_variable}; see the vendor's page of keys, and its IP allowlist"
        return failed(name, str(error), advice), skew
    seen = f"the key works; the balance is {balance:g} credits"
    return (ok(name, seen) if balance > 0 else warning(name, seen, "buy credits")), skew


def _clock_skew(headers: Headers, before: float, after: float) -> float | None:
    """Return how far the answer's `Date` (whole seconds) is from the time of the call, `None` without one."""
    try:
        date = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    shown = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    return min(0.0, shown - before + 1.0) or max(0.0, shown - after)


def _clock(skew: float) -> CheckLine:
    side = "behind" if skew > 0 else "ahead of"
    if abs(skew) <= SKEW_SECONDS:
        shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return ok("clock", f"it agrees with the provider's: {shown}")
    seen, advice = f"this machine's clock is {abs(skew):.0f} s {side} the provider's", "synchronize it by NTP"
    if abs(skew) < MAX_SKEW_SECONDS:
        return warning("clock", seen, advice)
    return failed("clock", f"{seen}, so signed webhooks are refused", advice)


async def _store(parts: Parts) -> list[CheckLine]:
    store = parts.settings.store
    if isinstance(store, MemoryStore):
        seen = "jobs are kept in memory: they end with the process"
        return [warning("store", seen, "give it a `store=`, such as sqlite:///jobs.db")]
    try:
        await store.secret("check", b"check")  # a write without a job; claims write only if something is due
        warnings = await store.warnings()
    except StoreError as error:
        return [failed("store", str(error), STORE_ADVICE)]
    return [warning("store", each, "") for each in warnings] or [ok("store", "it can be written")]


def _versions() -> CheckLine:
    try:
        import apsw  # noqa: PLC0415 - an optional extra

        sqlite = apsw.sqlite_lib_version()  # stores prefer it to Python's own
    except ImportError:
        sqlite = sqlite3.sqlite_version
    found = [f"audioext {__version__}", f"Python {platform.python_version()}", f"SQLite {sqlite}"]
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ok("versions", ", ".join(found))
