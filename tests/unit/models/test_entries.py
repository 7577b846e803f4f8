"""An entry's id is a digest of its contents, so that a repeat is the same entry."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.models.entries import OTHER_TASK, REFUSED, UNCONFIRMED, UNREADABLE, EntryKind, make_entry

kinds: st.SearchStrategy[EntryKind] = st.sampled_from(["answer", "webhook", "status", "handled", "expired"])
sayings = st.tuples(kinds, st.integers(0, 599), st.text(max_size=5), st.binary(max_size=5))


@given(said=sayings, times=st.tuples(st.floats(0, 1e10), st.floats(0, 1e10)))
def test_time_and_headers_are_not_part_of_an_entrys_id(
    said: tuple[EntryKind, int, str, bytes], times: tuple[float, float]
) -> None:
    """The time and the headers are not part of an entry's id."""
    kind, status, note, body = said
    first, again = (
        make_entry(kind, at, status=status, headers={"date": str(at)}, body=body, note=note) for at in times
    )

    assert first.id == again.id
    assert times == (first.at, again.at)


@given(one=sayings, two=sayings)
def test_entries_that_say_different_things_have_different_ids(
    one: tuple[EntryKind, int, str, bytes], two: tuple[EntryKind, int, str, bytes]
) -> None:
    """Entries that differ in kind, status, note or body have different ids."""
    first, second = (
        make_entry(kind, 1.0, status=status, body=body, note=note) for kind, status, note, body in (one, two)
    )

    assert (one == two) == (first.id == second.id)


def test_bytes_moved_from_note_to_body_make_another_id() -> None:
    """Bytes that move from the note to the body make another id."""
    cuts = [make_entry("webhook", 1.0, note="a 1 b"[:n], body=b"a 1 b"[n:]) for n in range(6)]

    assert len({entry.id for entry in cuts}) == len(cuts)


def test_ids_are_stable_over_releases() -> None:
    """Ids are stable over releases, since stores keep them."""
    entry = make_entry("webhook", 1.0, body=b"{}", note="unreadable: λ")

    assert "62be8c661efbfc097f3c11c2" == entry.id


@pytest.mark.parametrize("kind", ["request", "answer", "webhook", "status", "handled", "expired", "abandoned"])
def test_a_full_journal_still_takes_our_own_entries(kind: EntryKind) -> None:
    """A full journal refuses webhooks and statuses, but never entries that we write ourselves."""
    assert (kind in {"webhook", "status"}) == (make_entry(kind, 1.0).room < math.inf)


def test_refused_webhooks_fill_at_most_half_of_a_journal() -> None:
    """Refused and unreadable webhooks may fill half of a journal, and no webhook keeps out a status."""
    faulty = {make_entry("webhook", 1.0, note=f"{verdict}: x").room for verdict in (REFUSED, UNREADABLE, OTHER_TASK)}
    good = {make_entry("webhook", 1.0, note=note).room for note in ("", UNCONFIRMED)}

    assert max(faulty) < min(good) == max(good) < make_entry("status", 1.0).room


def test_the_body_alone_counts_in_bytes() -> None:
    """An entry counts with the size of its body, which its repr does not show."""
    entry = make_entry("webhook", 1.0, headers={"x": "secret"}, body=b"secret", note="note")

    assert 6 == entry.size
    assert "secret" not in repr(entry)


def test_any_note_has_an_id() -> None:
    """A note with a lone surrogate has an id like any other."""
    notes = ["", "λ", "\udc80", "\ud800"]

    assert len(notes) == len({make_entry("answer", 1.0, note=note).id for note in notes})
