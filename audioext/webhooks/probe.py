"""What a check sends to the public URL: a nonce in the shape of a callback, and a body that proves to be whole."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from audioext.clock import mint_id
from audioext.http.decoding import MAX_BODY_BYTES

FRESH_SECONDS = 600.0
"""How long a nonce is answered. Checks and receivers may be two processes, whose clocks differ a little."""
_CONTEXT = b"audioext check 1 "
_FRAME = b'{"probe":"%s"}'
_TIME_LETTERS = 9
"""Of a ref: what comes first in it tells when it was made."""


def probe_body(secret: bytes, ref: str, size: int) -> bytes:
    """Return JSON of *size* bytes that follows from the secret, the ref and the size, and can be made by no other."""
    seed = hmac.digest(secret, _CONTEXT + ref.encode() + str(size).encode(), "sha256")
    filling = max(0, size - len(_FRAME) + len(b"%s"))
    return _FRAME % hashlib.shake_256(seed).hexdigest(filling // 2 + 1)[:filling].encode()


def status_of_probe(secrets: Sequence[bytes], ref: str, body: bytes) -> int:
    """Return what a check is answered whose nonce carries our tag: 200 where its body came whole, else 400."""
    is_whole = len(body) <= MAX_BODY_BYTES and any(body == probe_body(each, ref, len(body)) for each in secrets)
    return 200 if is_whole else 400


def is_fresh(ref: str, now: float) -> bool:
    """Say whether a nonce was made within `FRESH_SECONDS` of *now* (Unix seconds), on either side."""
    first, last = (mint_id(now + each)[:_TIME_LETTERS] for each in (-FRESH_SECONDS, FRESH_SECONDS))
    return first <= ref[:_TIME_LETTERS] <= last
