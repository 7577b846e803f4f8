"""What is kept in a store: coming back after Ctrl-C, `show`, `jobs`, `save`, `inbox` and `replay`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from pathlib import Path

import pytest
import soundfile
from attrs import evolve

import audioext as ax
from audioext.cli.clients import job_options
from audioext.cli.jobs import timeline
from audioext.cli.options import StoreOptions
from audioext.models.record import Reached, Record
from audioext.sandbox import Sandbox
from audioext.state import stages
from audioext.stores import open_store
from tests.integration.cli.conftest import (
    FAST,
    FULL,
    PATIENCE_SECONDS,
    STORE,
    TRACK,
    Invoke,
    Start,
    aside,
    read_until,
    short_sandbox,
)


@pytest.fixture
def ref(invoke: Invoke) -> str:
    """Return the ref of a job that was completed by webhook and is in the store."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--meta", "chat=42", "--key", "k1", "--no-save", "--json")
    assert 0 == ended.code
    found: str = ended.json["ref"]
    return found


# --- coming back -----------------------------------------------------------------------------------------


async def test_save_fetches_the_files_of_a_finished_job(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """`extend --no-save`, then `save` with the beginning of the ref; no key is needed for that."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        api = ("--base-url", sandbox.bases["kie"], "--poll-every", "0.1")
        made = await aside(invoke, "extend", TRACK, *FULL, *STORE, *api, "--no-save", "--json")
        monkeypatch.delenv("KIE_API_KEY")
        saved = await aside(invoke, "save", made.json["ref"][:20], *STORE, "--out", "out")

    assert 0 == saved.code
    assert "out/Part 2 - take 1.mp3" in saved.out
    assert 2 == len(list(Path("out").iterdir()))


def test_the_same_key_is_submitted_once(invoke: Invoke, ref: str) -> None:
    """A second `extend --key` returns the first one's job and sends nothing."""
    again = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--key", "k1", "--no-save", "--json")

    assert (0, ref) == (again.code, again.json["ref"])


def test_waiting_for_a_job_without_a_key_says_that_nobody_can_be_asked(invoke: Invoke) -> None:
    """`wait` without a key waits for a listener on the same store, until its time is up."""
    left = invoke("extend", TRACK, *FULL, "--sandbox", "--speed", "1", *STORE, "--no-wait")
    ended = invoke("wait", left.out.strip(), *STORE, "--timeout", "0.1")

    assert 5 == ended.code
    assert "without KIE_API_KEY nobody can be asked" in ended.err
    assert f"audioext wait {left.out.strip()} --store sqlite:///jobs.db" in ended.err


def test_waiting_goes_on_when_the_status_cannot_be_asked_for(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that does not answer a status call is told, and does not end the wait."""
    left = invoke("extend", TRACK, *FULL, "--sandbox", "--speed", "1", *STORE, "--no-wait")
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    # The sandbox of the submit has ended; a new one has never heard of the task.
    ended = invoke("wait", left.out.strip(), *STORE, "--sandbox", "--timeout", "0.1")

    assert 5 == ended.code
    assert "the status could not be asked for, waiting on" in ended.err


# --- show and jobs ---------------------------------------------------------------------------------------


def test_show_tells_all_of_a_job(invoke: Invoke, ref: str) -> None:
    """State, request, timeline, tracks and deliveries, for a reader."""
    ended = invoke("show", ref, *STORE)

    assert 0 == ended.code
    for line in (r"job +" + ref, r"state +complete", r"provider +kie", r"continue_at +2", r'meta +{"chat": 42}'):
        assert re.search(rf"^{line}$", ended.out, re.MULTILINE)
    words = re.findall(r"^  (\w+) +\+\d+\.\d s", ended.out, re.MULTILINE)
    assert ["submitted", "text", "first", "complete", "applied", "applied", "applied"] == words
    assert 2 == ended.out.count("/files/kie/")


def test_show_as_json(invoke: Invoke, ref: str) -> None:
    """The same for machines: times in seconds since the job was made, and as ISO 8601."""
    shown = invoke("show", ref, *STORE, "--json").json

    assert (ref, "complete", "extend", "V5") == (shown["ref"], shown["state"], shown["operation"], shown["model"])
    assert ["submitted", "text", "first", "complete"] == [item["event"] for item in shown["timeline"]]
    assert "by webhook" == shown["timeline"][-1]["how"]
    assert 2 == len(shown["tracks"])
    assert ["applied"] * 3 == [delivery["verdict"] for delivery in shown["deliveries"]]
    assert TRACK == shown["request"]["audio_id"]


def test_show_tells_what_went_wrong(invoke: Invoke) -> None:
    """A failed job shows the reason, the code and what it cost."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--fault", "error=complete:531", "--json")
    ref = ended.json["error"]["ref"]

    plain, in_json = invoke("show", ref, *STORE), invoke("show", ref, *STORE, "--json").json

    assert re.search(r"^failure +\w+, code 531: ", plain.out, re.MULTILINE)
    assert re.search(r"^charged +no$", plain.out, re.MULTILINE)
    assert re.search(r"^  failed +\+", plain.out, re.MULTILINE)
    assert ("531", False) == (in_json["failure"]["code"], in_json["failure"]["charged"])


async def test_show_tells_complaints_handler_faults_and_the_deadline(spawn: Invoke) -> None:
    """A refused status call, a handler that was given up and an expired job are shown."""
    now = time.time()
    request = ax.AddInstrumental(file="voice.wav", title="\x1b[31mred", tags="soft", negative_tags="")
    record = Record(ref="r" * 24, provider="kie", request=request, created_at=now - 200_000)
    record = stages.expire(stages.complain(record, "kie answered 429: slow down", at=now), at=now)
    record = stages.blame_handler(record, "first: ValueError: no chat")
    store = open_store("sqlite:///jobs.db")
    await store.open()
    await store.create(record)
    await store.aclose()

    ended = await aside(spawn, "show", record.ref, *STORE)

    assert 0 == ended.code
    for words in ("slow down", "no chat", "expired", "2 d 7 h", "given up", "[31mred"):
        assert words in ended.out
    assert "\x1b" not in ended.out


def test_a_webhook_that_named_the_task_first_is_told() -> None:
    """Where the answer was lost, the timeline says that a webhook told of the task."""
    request = ax.Extend(audio_id="e231")
    record = Record(ref="r" * 24, provider="kie", request=request, created_at=100.0)
    reached = Reached(stage=ax.Stage.SUBMITTED, source="webhook", at=111.0)

    assert [("submitted", 111.0, "by webhook")] == timeline(evolve(record, submitted=reached, reached=(reached,)))


def test_jobs_lists_the_newest_last(invoke: Invoke, ref: str) -> None:
    """All jobs, the open ones, those with some meta, and at most so many."""
    left = invoke("extend", TRACK, *FULL, "--sandbox", "--speed", "1", *STORE, "--no-wait").out.strip()

    def listed(*options: str) -> list[str]:
        return [json.loads(line)["ref"] for line in invoke("jobs", *STORE, "--json", *options).out.splitlines()]

    plain = invoke("jobs", *STORE)

    assert [ref, left] == listed()
    assert [left] == listed("--open")
    assert [ref] == listed("--meta", "chat=42")
    assert [] == listed("--meta", "chat=43")
    assert [left] == listed("--limit", "1")
    assert ["ref", ref, left] == [line.split()[0] for line in plain.out.splitlines()]
    assert ["complete", "submitted"] == [line.split()[1] for line in plain.out.splitlines()[1:]]


def test_a_sandboxs_jobs_are_kept_apart(invoke: Invoke, folder: Path) -> None:
    """Without `--store`, jobs of an in-process sandbox are in a file of their own, which `--sandbox` finds."""
    made = invoke("extend", TRACK, *FULL, *FAST, "--no-save", "--json").json["ref"]

    assert (folder / "audioext-sandbox.db").exists()
    assert not (folder / "audioext.db").exists()
    assert 0 == invoke("show", made, "--sandbox").code
    assert 8 == invoke("show", made).code


def test_nothing_to_list_is_said(invoke: Invoke) -> None:
    """An empty store is no error, and stdout stays empty."""
    for command in ("jobs", "inbox"):
        ended = invoke(command, "--store", "memory://")
        assert (0, "") == (ended.code, ended.out)
        assert ended.err.startswith("no such ")


# --- the journal -----------------------------------------------------------------------------------------


def test_inbox_lists_the_deliveries_newest_first(invoke: Invoke, ref: str) -> None:
    """Each delivery with its verdict; the JSON has its body, and no tag anywhere."""
    plain, in_json = invoke("inbox", *STORE), invoke("inbox", ref, *STORE, "--json", "--limit", "2")

    assert ["delivery"] == [line.split()[0] for line in plain.out.splitlines()[:1]]
    assert 3 == plain.out.count(" applied ")
    rows = [json.loads(line) for line in in_json.out.splitlines()]
    assert ["complete", "first"] == [json.loads(row["body"])["data"]["callbackType"] for row in rows]
    assert [] == re.findall(r"/[0-9a-z]{24}/[\w-]{43}", plain.out + in_json.out)


def test_replay_feeds_a_delivery_in_again(invoke: Invoke, ref: str) -> None:
    """A delivery goes through tag, check and dispatch again, and is journaled as a repeat."""
    delivery = json.loads(invoke("inbox", *STORE, "--json", "--limit", "1").out)["id"]

    replayed = invoke("replay", delivery, *STORE)
    in_json = invoke("replay", delivery, *STORE, "--json").json

    assert (0, f"delivery {delivery} of job {ref} was answered with 200\n") == (replayed.code, replayed.out)
    assert {"delivery": delivery, "ref": ref, "status": 200} == in_json
    verdicts = [json.loads(line)["verdict"] for line in invoke("inbox", *STORE, "--json").out.splitlines()]
    assert ["applied"] * 3 + ["repeat"] * 2 == sorted(verdicts)


async def test_a_replay_is_verified_at_its_own_time(spawn: Invoke) -> None:
    """kie.ai's signature is checked again: the right key lets it through, another does not."""
    async with Sandbox(speed=1e5, hmac_key="signing-key") as sandbox:
        env = {"KIE_API_KEY": sandbox.api_key, "KIE_WEBHOOK_KEY": "signing-key"}
        web = ("--base-url", sandbox.bases["kie"], "--public-url", "http://127.0.0.1:{port}", "--listen", "127.0.0.1:0")
        made = await aside(spawn, "extend", TRACK, *FULL, *STORE, *web, "--no-save", "--json", env=env)
    assert 0 == made.code, made.err
    delivery = json.loads((await aside(spawn, "inbox", *STORE, "--json", "--limit", "1")).out)["id"]

    right = await aside(spawn, "replay", delivery, *STORE, env={"KIE_WEBHOOK_KEY": "signing-key"})
    wrong = await aside(spawn, "replay", delivery, *STORE, "--json", env={"KIE_WEBHOOK_KEY": "another"})

    assert 0 == right.code
    assert (3, 401, "WebhookError") == (
        wrong.code,
        wrong.json["error"]["http_status"],
        wrong.json["error"]["type"],
    )
    assert "signing-key" not in made.out + made.err + right.out + right.err


def test_replay_to_a_receiver_posts_it_there(start: Start, invoke: Invoke, ref: str) -> None:
    """`--to` is a receiver's public URL; one with another secret refuses, and an empty port is told."""
    delivery = json.loads(invoke("inbox", *STORE, "--json", "--limit", "1").out)["id"]
    hooks = ("--public-url", "http://127.0.0.1:{port}/audio", "--listen", "127.0.0.1:0", "--json")
    ours, stranger = start("listen", *hooks, *STORE), start("listen", *hooks, "--store", "sqlite:///other.db")
    urls = [json.loads(process.stdout.readline())["public_url"] for process in (ours, stranger) if process.stdout]

    posted, refused = (invoke("replay", delivery, *STORE, "--to", url) for url in urls)
    lost = invoke("replay", delivery, *STORE, "--to", "http://127.0.0.1:9")

    assert (0, 3, 2) == (posted.code, refused.code, lost.code)
    assert "was answered with 401" in refused.err
    assert "nobody answers at http://127.0.0.1:9" in lost.err
    assert [] == re.findall(r"/[0-9a-z]{24}/[\w-]{43}", posted.out + refused.err + lost.err)


# --- trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("show", "x"), ("save", "x"), ("wait", "x"), ("replay", "x")])
def test_what_the_store_does_not_hold_is_exit_code_8(invoke: Invoke, ref: str, command: tuple[str, str]) -> None:
    """An unknown ref or delivery, and a store that is not there, are told; no empty file is left behind."""
    unknown, nowhere = invoke(*command, *STORE), invoke(*command, "--store", "sqlite:///nope.db")

    assert (8, 8) == (unknown.code, nowhere.code)
    assert "this store holds no " in unknown.err
    assert "there is no store at nope.db" in nowhere.err
    assert not Path("nope.db").exists()


def test_a_store_that_cannot_be_read_is_exit_code_8(invoke: Invoke) -> None:
    """A file that is no store is a clear error."""
    Path("jobs.db").write_bytes(b"this is not a database, and long enough to be seen as such" * 20)

    ended = invoke("jobs", *STORE, "--json")

    assert (8, "StoreError") == (ended.code, ended.json["error"]["type"])


def test_saving_too_early_says_to_wait(invoke: Invoke) -> None:
    """A job that is not complete has nothing to save yet."""
    left = invoke("extend", TRACK, *FULL, "--sandbox", "--speed", "1", *STORE, "--no-wait").out.strip()
    ended = invoke("save", left, *STORE)

    assert 5 == ended.code
    assert "is not complete: it is at submitted" in ended.err
    assert f"audioext wait {left} --store sqlite:///jobs.db" in ended.err


def test_saving_too_late_says_so(invoke: Invoke, ref: str) -> None:
    """Links that lead nowhere any more are a download problem."""
    ended = invoke("save", ref, *STORE)

    assert 7 == ended.code
    assert f"audioext save {ref}" in ended.err


def test_a_stores_password_is_not_repeated() -> None:
    """The way back names the store, unless its URL holds a password."""
    assert "" == job_options(StoreOptions(store="redis://me:secret@db/0"), sandbox=False).options
    assert " --store redis://db/0" == job_options(StoreOptions(store="redis://db/0"), sandbox=False).options
