"""The recovery of a job's files, as its journal has it: its task, its end, and the links that changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import audioext as ax
from audioext.models.entries import OTHER_TASK, REFUSED, UNSENT, Entry, EntryKind, make_entry
from audioext.models.record import Record, Recovery, Verdict
from audioext.models.results import Track
from audioext.state.fold import fold
from audioext.state.reading import dump_asked, read
from audioext.state.recovery import is_other_task, with_recovered
from tests.support.tape import REF, asked

KIE = ax.Kie("0123456789abcdef0123")
OLD, NEW, LATER = (f"https://files.test/{name}.mp3" for name in ("old", "new", "later"))


def said(kind: EntryKind, at: float, body: object = None, *, note: str = "", status: int = 200) -> Entry:
    """Return an entry with a JSON body."""
    return make_entry(kind, at, status=status, body=msgspec.json.encode(body) if body is not None else b"", note=note)


def back(url: str, task_id: str | None = None, *, id_: str = "a", code: int = 200) -> dict[str, object]:
    """Return the body of a recovery's callback, or of its status if *task_id* is `None`."""
    named = {} if task_id is None else {"task_id": task_id}
    word = "success" if url else "failed"
    error = "" if url else "clip_error"
    return {"code": code, "msg": word, **named, "data": [{"id": id_, "audio_url": url, "status": word, "error": error}]}


SONG = {"callbackType": "complete", "task_id": "task", "data": [{"id": "a", "audio_url": OLD, "duration": 3.0}]}
DONE = (
    make_entry("request", 1.0, body=dump_asked(asked(provider="kie", retention=100.0))),
    said("answer", 2.0, {"code": 200, "data": {"taskId": "task"}}),
    said("webhook", 3.0, {"code": 200, "data": SONG}, status=0),
)
BEGUN = make_entry("recovery", 10.0, note="attempt 1")
ANSWER = said("recovery_answer", 11.0, {"code": 200, "data": {"taskId": "rec"}}, note="attempt 1")
CALLBACK = said("webhook", 12.0, back(NEW, "rec"), status=0)
STATUS = said("recovery_status", 13.0, back(NEW), note="of rec")


def record(*entries: Entry) -> Record:
    """Return the record of a finished job with these entries."""
    found = fold(REF, [read(entry, KIE) for entry in (*DONE, *entries)])
    assert found is not None
    return found


def recovery(*entries: Entry) -> Recovery:
    """Return the recovery in the record of such a job."""
    found = record(*entries).recovery
    assert found is not None
    return found


def links(found: Record) -> list[str | None]:
    """Return the audio links of a record's tracks."""
    return [track.audio_url for track in found.tracks]


def test_a_recovery_is_under_way_until_something_came_back() -> None:
    """A recovery is open until a file comes back, and the old link, which may still work, stays until then."""
    steps = [record(*(BEGUN, ANSWER, CALLBACK)[:count]) for count in range(4)]

    assert [None, None, "rec", "rec"] == [step.recovery.task_id if step.recovery else None for step in steps]
    assert [None, Verdict.OPEN, Verdict.OPEN, Verdict.COMPLETE] == [
        step.recovery.verdict if step.recovery else None for step in steps
    ]
    assert [[OLD]] * 3 + [[NEW]] == [links(step) for step in steps]
    assert {Verdict.COMPLETE} == {step.verdict for step in steps}
    assert 112.0 == steps[-1].tracks[0].expires_at.timestamp()  # type: ignore[union-attr]  # it has one


@given(
    st.permutations([*DONE, BEGUN, ANSWER, CALLBACK, STATUS]),
    st.lists(st.sampled_from([BEGUN, ANSWER, CALLBACK, STATUS])),
)
def test_order_and_repetition_change_nothing(order: list[Entry], again: list[Entry]) -> None:
    """The order and repetition of a recovery's entries do not change the record."""
    assert record(BEGUN, ANSWER, CALLBACK, STATUS) == fold(REF, {e.id: read(e, KIE) for e in (*order, *again)}.values())


@pytest.mark.parametrize("count", range(1, 4))
def test_the_first_callback_names_a_recovery_whose_answer_is_lost(count: int) -> None:
    """A recovery's task is known from its answer or from its first callback, in any combination."""
    late = said("recovery_answer", 12.5, {"code": 200, "data": {"taskId": "rec"}}, note="attempt 1")
    for chosen in itertools.combinations([late, CALLBACK, STATUS], count):
        assert "rec" == recovery(BEGUN, *chosen).task_id or chosen == (STATUS,)


@pytest.mark.parametrize("note", [f"{OTHER_TASK} than it", f"{REFUSED}: forged"])
def test_a_refused_webhook_does_not_complete_a_recovery(note: str) -> None:
    """A webhook that is forged or names a third task does not complete a recovery."""
    assert Verdict.OPEN is recovery(BEGUN, said("webhook", 12.0, back(NEW, "rec"), status=0, note=note)).verdict


def test_a_webhook_of_a_third_task_changes_nothing() -> None:
    """Once a recovery's task is known, a webhook of another task changes nothing."""
    found = record(BEGUN, ANSWER, said("webhook", 12.0, back(LATER, "third"), status=0))

    assert ([OLD], "rec") == (links(found), found.recovery.task_id if found.recovery else None)


@pytest.mark.parametrize(
    ("entries", "verdict", "problem"),
    [
        (
            [said("recovery_answer", 11.0, {"code": 402, "msg": "no credits"}, note="attempt 1")],
            Verdict.REFUSED,
            "no credits",
        ),
        (
            [make_entry("recovery_answer", 11.0, note=f"{UNSENT}: no connection (attempt 1)")],
            Verdict.REFUSED,
            "no connection",
        ),
        ([make_entry("recovery_answer", 11.0, note="it broke off (attempt 1)")], Verdict.OPEN, "it broke off"),
        ([said("recovery_answer", 11.0, "what?", status=500, note="attempt 1")], Verdict.OPEN, "HTTP 500"),
        ([ANSWER, said("recovery_status", 12.0, back("", code=500), note="of rec")], Verdict.FAILED, "clip_error"),
        ([said("webhook", 11.0, back("", "rec", code=500), status=0)], Verdict.FAILED, "failed"),
        ([ANSWER, make_entry("recovery_status", 12.0, note=f"{UNSENT}: no connection (of rec)")], Verdict.OPEN, None),
        ([ANSWER, said("recovery_status", 12.0, {"code": 201, "data": None}, note="of rec")], Verdict.OPEN, None),
    ],
)
def test_a_recovery_without_files_has_its_problem(entries: list[Entry], verdict: Verdict, problem: str | None) -> None:
    """A recovery without files may be refused, failed or still open, with its problem, and the song stays complete."""
    found = record(BEGUN, *entries)

    assert found.recovery is not None
    assert verdict is found.recovery.verdict
    assert problem is None if found.recovery.problem is None else (problem or "?") in found.recovery.problem
    assert (Verdict.COMPLETE, None, [OLD]) == (found.verdict, found.fault, links(found))


def test_a_failure_loses_no_recovered_file() -> None:
    """A failure before or after a success loses no recovered file."""
    failed = said("webhook", 11.5, back("", "rec", code=500), status=0)

    assert [NEW] == links(record(BEGUN, ANSWER, CALLBACK, failed)) == links(record(BEGUN, failed, STATUS))


def test_the_last_recovery_counts() -> None:
    """A second recovery starts anew, and its links replace those of the first."""
    second = make_entry("recovery", 20.0, note="attempt 2")
    begun = record(BEGUN, ANSWER, CALLBACK, second)
    done = record(BEGUN, ANSWER, CALLBACK, second, said("webhook", 21.0, back(LATER, "rec-2"), status=0))

    assert begun.recovery is not None
    assert (2, Verdict.OPEN) == (begun.recovery.attempt, begun.recovery.verdict)
    assert [LATER] == links(done)


def test_entries_belong_to_their_recovery_whatever_the_clocks_say() -> None:
    """Entries belong to the attempt in their notes, even if the times of several clocks are out of order."""
    second = make_entry("recovery", 5.0, note="attempt 2")  # after the first one, by a clock that is behind
    answer = said("recovery_answer", 4.0, {"code": 200, "data": {"taskId": "rec-2"}}, note="attempt 2")
    status = said("recovery_status", 3.5, back(LATER), note="of rec-2")

    assert [LATER] == links(record(BEGUN, ANSWER, second, answer, status))
    assert (2, "rec-2") == ((found := recovery(BEGUN, ANSWER, second, answer)).attempt, found.task_id)


def made(*tracks: Track, verdict: Verdict = Verdict.COMPLETE) -> Recovery:
    """Return a recovery that brought back *tracks*."""
    return Recovery(attempt=1, begun_at=1.0, ended_at=2.0, task_id="rec", verdict=verdict, tracks=tracks)


def test_links_go_to_their_tracks_by_id_else_by_place() -> None:
    """Recovered links go to tracks by id, else by place, as no page says whose ids come back; other links stay."""
    one, silent, two = Track(id="1", audio_url="u1"), Track(id="x"), Track(id="2", audio_url="u2")

    def after(*back: Track) -> list[str | None]:
        return [track.audio_url for track in with_recovered((one, silent, two), made(*back), None)]

    assert ["n1", None, "u2"] == after(Track(id="2"), Track(id="1", audio_url="n1"))
    assert ["n1", None, "n2"] == after(Track(id="v", audio_url="n1"), Track(id="w", audio_url="n2"))
    assert ["n1", None, "u2"] == after(Track(audio_url="n1"))


@pytest.mark.parametrize(
    ("task_id", "found", "owner", "others"),
    [
        (None, None, None, ()),
        (None, None, "somebody", ("task", "rec", "third")),
        ("task", None, None, ("rec", "third")),
        ("task", made(), None, ("third",)),
        ("task", Recovery(attempt=1, begun_at=1.0), None, ()),
        ("task", Recovery(attempt=1, begun_at=1.0), "somebody", ("rec", "third")),
        ("task", Recovery(attempt=1, begun_at=1.0, verdict=Verdict.REFUSED), None, ("rec", "third")),
    ],
)
def test_the_first_task_id_that_no_job_owns_is_the_recoverys(
    task_id: str | None, found: Recovery | None, owner: str | None, others: Iterable[str]
) -> None:
    """A recovery whose task is unknown takes the first task id that no other job owns, and no others."""
    job = Record(ref=REF, asked=asked(), created_at=1.0, task_id=task_id, recovery=found)

    assert [*others] == [named for named in ("task", "rec", "third") if is_other_task(job, named, owner)]
