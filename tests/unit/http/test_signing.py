"""Signatures and tags cannot be guessed, cut, padded or mixed up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.http import signing

SECRET, OTHER = b"a secret of some length", b"another secret of length"


@pytest.mark.parametrize(
    ("key", "message", "signature"),
    [
        (
            "demo-hmac-key",
            "0f3a9c7be1d24c55a6b8d90e7f112233.1790000000",
            "fFells+5MVdErKVqs08zP2WnjDH8alCzqqMnoLoDUx4=",
        ),
        ("ключ-λ", "task-42.1790000001", "DV9msHhbH5y6nrHTxmc75M9AwLl0xwAYb/54rfUGgL8="),
    ],
)
def test_vendor_signatures_are_as_the_vectors_say(key: str, message: str, signature: str) -> None:
    """Vendor signatures are HMAC-SHA256 in padded Base64 with a UTF-8 key; any of several keys may match."""
    assert signature == signing.hmac_base64(key, message.encode())
    of_old = signing.hmac_base64("old", message.encode())
    assert signing.is_one_of(signature, [of_old, signature])
    assert not signing.is_one_of(signature, [of_old])
    assert not signing.is_one_of(f"{signature}\n", [signature])


@given(st.text(max_size=60))
def test_any_text_can_be_compared_and_does_not_match(claimed: str) -> None:
    """Any text, also if not ASCII, can be compared without an error, and does not match."""
    assert not signing.tag_matches([SECRET], "kie", "ref", claimed)
    assert not signing.is_one_of(claimed, [signing.hmac_base64("key", b"message")])


def test_a_tag_is_the_same_as_in_earlier_releases() -> None:
    """A tag is the same as in earlier releases, so that callback URLs sent before an update stay valid."""
    tag = signing.tag(b"a secret of 32 bytes, or thereby", "kie", "01h2xcejqtf2nbrexx3vqjhp")

    assert "kahh_U9w7bonhXg8TgJCWEgs8pfRqZPVhEm1vvcx350" == tag


def test_a_tag_holds_for_its_provider_ref_and_secret_alone() -> None:
    """A tag is valid only for its provider, ref and secret, and old secrets stay valid."""
    tag = signing.tag(SECRET, "kie", "ref")

    assert (43, True) == (len(tag), tag.replace("-", "a").replace("_", "a").isalnum())
    assert signing.tag_matches([OTHER, SECRET], "kie", "ref", tag)
    assert not signing.tag_matches([OTHER], "kie", "ref", tag)
    assert not signing.tag_matches([SECRET], "kier", "ef", tag)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1790000000", 1_790_000_000),
        ("0", 0),
        ("1_0", None),
        ("-1", None),
        ("", None),
        ("١٢٣", None),
        ("9" * 13, None),
        (" 1", None),
    ],
)
def test_timestamps_are_plain_ascii_digits(text: str, seconds: int | None) -> None:
    """A timestamp is plain ASCII digits; other text that `int` accepts is refused."""
    assert seconds == signing.unix_seconds(text)
