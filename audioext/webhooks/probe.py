"""The request that a check sends to the public URL: a callback path with a nonce, and a verifiable body."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from audioext.clock import mint_id
from audioext.http.decoding import MAX_BODY_BYTES

FRESH_SECONDS = 600.0
"""How long a nonce is valid. The check and the receiver may run on machines whose clocks differ a little."""
_CONTEXT = b"audioext check 1 "
_FRAME = b'{"probe":"%s"}'
_TIME_LETTERS = 9
"""The prefix of a ref that encodes when it was made."""


def probe_body(secret: bytes, ref: str, size: int) -> bytes:
    """Return JSON of *size* bytes, derived from the secret, the ref and the size, so that only we can make it."""
    seed = hmac.digest(secret, _CONTEXT + ref.encode() + str(size).encode(), "sha256")
    filling = max(0, size - len(_FRAME) + len(b"%s"))
    return _FRAME % hashlib.shake_256(seed).hexdigest(filling // 2 + 1)[:filling].encode()


def status_of_probe(secrets: Sequence[bytes], ref: str, body: bytes) -> int:
    """Return the status that answers a check with a valid nonce: 200 if its body arrived intact, else 400."""
    is_whole = len(body) <= MAX_BODY_BYTES and any(body == probe_body(each, ref, len(body)) for each in secrets)
    return 200 if is_whole else 400


def is_fresh(ref: str, now: float) -> bool:
    """Say whether a nonce was made within `FRESH_SECONDS` of *now* (Unix seconds), on either side."""
    first, last = (mint_id(now + each)[:_TIME_LETTERS] for each in (-FRESH_SECONDS, FRESH_SECONDS))
    return first <= ref[:_TIME_LETTERS] <= last
