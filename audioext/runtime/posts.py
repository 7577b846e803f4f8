"""The one POST of a ref, and the entry that tells what came of it."""

from __future__ import annotations

import logging

from yarl import URL

from audioext.clock import Clock
from audioext.http.transport import BrokenError, NotSentError, Transport
from audioext.models.entries import Entry, make_entry
from audioext.models.requests import Request
from audioext.providers.base import Provider
from audioext.state.reading import answer_entry

_log = logging.getLogger("audioext.submit")

SUBMIT_TIMEOUT_SECONDS = 60.0
SHORTEST_SECRET = 8


async def post(  # noqa: PLR0913 - each is a part of its own
    transport: Transport, clock: Clock, provider: Provider, request: Request, *, ref: str, callback: URL | None
) -> Entry:
    """Send the POST of *ref* and return its answer, or why there was none; it never raises."""
    try:
        built = provider.build_submit(request, callback)
    except Exception as error:  # noqa: BLE001 - a provider's bug, or a name that it cannot write
        _log.exception("job %s: the submit could not be built", ref)
        why = f"the request could not be put into words ({type(error).__name__}); nothing was sent"
        return make_entry("abandoned", clock.now(), note=why)
    try:
        response = await transport.send(built, timeout=SUBMIT_TIMEOUT_SECONDS)
    except NotSentError as error:
        return make_entry("abandoned", clock.now(), status=1, note=str(error))
    except BrokenError as error:
        return make_entry("answer", clock.now(), note=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, bytes may have left
        _log.exception("job %s: the submit broke off", ref)
        return make_entry("answer", clock.now(), note=f"the submit broke off with {type(error).__name__}")
    # A provider may quote the callback URL in its error; what we show and store must not hold the tag.
    secrets = [getattr(provider, "api_key", None) or "", "" if callback is None else callback.name]
    return answer_entry(response, clock.now(), [secret for secret in secrets if len(secret) >= SHORTEST_SECRET])
