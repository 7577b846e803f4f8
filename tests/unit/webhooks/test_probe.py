"""The nonce of a check: its body is verified byte for byte, and it is valid for a short time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.clock import mint_id
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.webhooks.probe import FRESH_SECONDS, is_fresh, probe_body, status_of_probe

SECRET, OLD = b"0123456789abcdef-new", b"0123456789abcdef-old"
NOW = 1_790_000_000.0
REF = mint_id(NOW)


@given(st.integers(min_value=12, max_value=5_000))
def test_a_body_is_json_of_its_size(size: int) -> None:
    """The body is valid JSON of the requested size, so that proxies pass it, and any of the secrets verifies it."""
    body = probe_body(SECRET, REF, size)

    assert size == len(body)
    assert ["probe"] == [*json.loads(body)]
    assert 200 == status_of_probe([SECRET, OLD], REF, body)
    assert 200 == status_of_probe([OLD, SECRET], REF, body)


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=300), st.integers(min_value=0, max_value=300))
def test_a_changed_body_is_refused(filling: bytes, start: int, end: int) -> None:
    """A body with any change is refused."""
    whole = probe_body(SECRET, REF, 300)
    changed = whole[:start] + filling + whole[end:]

    assert (200 if changed == whole else 400) == status_of_probe([SECRET], REF, changed)


def test_a_body_with_another_secret_or_nonce_is_refused() -> None:
    """A body with another secret or nonce, or over the size limit, is refused."""
    assert 400 == status_of_probe([OLD], REF, probe_body(SECRET, REF, 300))
    assert 400 == status_of_probe([SECRET], mint_id(NOW), probe_body(SECRET, REF, 300))
    assert 400 == status_of_probe([SECRET], REF, probe_body(SECRET, REF, MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0.0, True), (FRESH_SECONDS - 1, True), (1 - FRESH_SECONDS, True), (FRESH_SECONDS + 1, False), (-1e6, False)],
)
def test_a_nonce_is_good_for_a_while(age: float, expected: bool) -> None:
    """A nonce is valid only for a while, with room for two clocks that differ."""
    assert expected is is_fresh(REF, NOW + age)
    assert not is_fresh("z" * 24, NOW + age)
