"""Whether the providers know us: their credits calls cost nothing, and show whether our clock is right."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

from audioext.check.report import CheckLine, failed, ok, warning
from audioext.errors import AudioextError, AuthError
from audioext.http.messages import Headers
from audioext.parts import Parts
from audioext.providers.base import Credits, Provider

CALL_SECONDS = 15.0
SKEW_SECONDS = 5.0
"""Beyond this processes that share a store may disturb each other's claims; `Date` shows whole seconds."""
MAX_SKEW_SECONDS = 300.0  # docs.kie.ai: a signature's time may be off by so much; see `Kie(webhook_tolerance=)`


async def look_at_accounts(parts: Parts) -> list[CheckLine]:
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
    except AuthError as error:
        advice = f"give the right key in {info.key_variable}; see the provider's key page, and its list of IP addresses"
        return failed(name, str(error), advice), skew
    except AudioextError as error:
        advice = f"see whether {info.base_url} can be reached from here, and is the right base_url"
        return failed(name, str(error), advice), skew
    if balance <= 0:
        return warning(name, f"the key works; the balance is {balance:g} credits", "buy some"), skew
    return ok(name, f"the key works; the balance is {balance:g} credits"), skew


def _ahead(headers: Headers, before: float, after: float) -> float | None:
    """Return how far the answer's `Date` is from the time of the call, `None` without one; it names whole seconds."""
    try:
        date = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    shown = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    earliest, latest = before - 1.0, after
    return min(0.0, shown - earliest) or max(0.0, shown - latest)


def _clock(skew: float) -> CheckLine:
    side = "behind" if skew > 0 else "ahead"
    if abs(skew) <= SKEW_SECONDS:
        return ok(
            "clock", f"it shows what the provider's does: {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}"
        )
    seen, advice = f"this machine's clock is {abs(skew):.0f} s {side} of the provider's", "set it by NTP"
    if abs(skew) < MAX_SKEW_SECONDS:
        return warning("clock", seen, advice)
    return failed("clock", f"{seen}, so that signed webhooks are refused", advice)
