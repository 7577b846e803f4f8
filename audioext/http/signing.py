"""Callback tags and vendors' signatures: making them, and comparing them in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from functools import lru_cache

_TAG_CONTEXT = b"\0\0\0\x13audioext callback 1"
MAX_TIMESTAMP_DIGITS = 12  # Unix seconds until the year 33658


@lru_cache(maxsize=4_096)  # a job's tag is needed for its submit and for each of its webhooks
def tag(secret: bytes, provider: str, ref: str) -> str:
    """Return the tag that proves that we issued *ref* for *provider*: 43 characters, safe in a URL path."""
    # Each part is hashed with its length, so that no two lists of parts make the same message.
    name, job = provider.encode(), ref.encode()
    message = _TAG_CONTEXT + len(name).to_bytes(4, "big") + name + len(job).to_bytes(4, "big") + job
    return base64.urlsafe_b64encode(hmac.digest(secret, message, "sha256"))[:-1].decode("ascii")


def tag_matches(secrets: Sequence[bytes], provider: str, ref: str, claimed: str) -> bool:
    """Say in constant time whether *claimed* is the tag of *ref* under any of *secrets*."""
    is_ours = False
    for secret in secrets:
        is_ours |= claimed.isascii() and hmac.compare_digest(tag(secret, provider, ref), claimed)
    return is_ours


def hmac_base64(key: str, message: bytes) -> str:
    """Return HMAC-SHA256 of *message*, keyed with the UTF-8 bytes of *key*, as padded standard Base64."""
    return base64.b64encode(hmac.digest(key.encode(), message, hashlib.sha256)).decode("ascii")


def is_one_of(claimed: str, proofs: Iterable[str]) -> bool:
    """Say in constant time whether *claimed* equals one of *proofs*: decoding its Base64 first would ignore junk."""
    # compare_digest raises TypeError for non-ASCII text.
    return claimed.isascii() and sum([hmac.compare_digest(proof, claimed) for proof in proofs]) > 0


def unix_seconds(text: str) -> int | None:
    """Return the Unix seconds in *text*, or `None` unless it is plain ASCII digits: `int` accepts much more."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_TIMESTAMP_DIGITS:
        return None
    return int(text)
