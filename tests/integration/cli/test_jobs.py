"""Commands on stored jobs: `wait`, `show`, `jobs`, `save`, `inbox` and `replay`."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import aiohttp
import attrs
import msgspec
import pytest

import audioext as ax
from audioext.models.entries import Entry, Index, make_entry
from audioext.models.record import Asked
from audioext.state.reading import Handled, dump_asked, load_asked
from audioext.stores import open_store
from tests.integration.cli.conftest import (
    FAST,
    FULL,
    HOOKS,
    STORE,
    TRACK,
    Ended,
    Invoke,
    aside,
    short_sandbox,
)

NOWHERE = "http://127.0.0.1:1/kie"


@pytest.fixture
def ref(invoke: Invoke) -> str:
    """Return the ref of a stored job that was completed by webhook."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--meta", "chat=42", "--key", "k1", "--no-save", "--json")
    assert 0 == ended.code
    found: str = ended.json["ref"]
    return found


# --- coming back later -----------------------------------------------------------------------------------


async def test_save_fetches_the_files_of_a_finished_job(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `extend --no-save`, `save` with a prefix of the ref fetches the files without an API key, and but once."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        api = ("--base-url", sandbox.bases["kie"], "--poll-every", "0.1")
        made = await aside(invoke, "extend", TRACK, *FULL, *STORE, *api, "--no-save", "--json")
        monkeypatch.delenv("KIE_API_KEY")
        saved = await aside(invoke, "save", made.json["ref"][:20], *STORE, "--out", "out")
        again = await aside(invoke, "wait", made.json["ref"][:20], *STORE, "--out", "out")

    assert (0, 0) == (saved.code, again.code), again.err
    assert "out/Part 2 - take 1.mp3" in saved.out
    assert 2 == len(list(Path("out").iterdir()))


def leave(invoke: Invoke) -> str:
    """Submit a task to a sandbox, end the sandbox while the task is open, and return the job's ref."""
    options = ("--sandbox", "--speed", "1", "--timeout", "0.1", "--json")
    return str(invoke("extend", TRACK, *FULL, *STORE, *options).json["error"]["ref"])


async def test_a_job_is_found_at_the_api_that_it_was_submitted_to(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wait` polls the API in the journal, whatever the environment says, and `show` prints its address."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        monkeypatch.setenv("AUDIOEXT_BASE_URL", str(sandbox.bases["kie"]))
        left = (await aside(invoke, "extend", TRACK, *FULL, *STORE, "--no-wait")).out.strip()
        monkeypatch.setenv("AUDIOEXT_BASE_URL", NOWHERE)
        pace = ("--poll-every", "0.1", "--no-save")
        elsewhere = await aside(invoke, "wait", left, *STORE, *pace, "--base-url", NOWHERE, "--timeout", "0.2")
        waited = await aside(invoke, "wait", left, *STORE, *pace, "--timeout", "20")
        shown = await aside(invoke, "show", left, *STORE)
        in_json = (await aside(invoke, "show", left, *STORE, "--json")).json

    assert 5 == elsewhere.code
    assert f"audioext wait {left} --store sqlite:///jobs.db --base-url {NOWHERE}" in elsewhere.err
    assert 0 == waited.code, waited.err
    assert str(sandbox.bases["kie"]) == in_json["base_url"]
    assert re.search(rf"^api +{sandbox.bases['kie']}$", shown.out, re.MULTILINE)


def test_the_same_key_is_submitted_once(invoke: Invoke, ref: str) -> None:
    """A second `extend --key` returns the first job and sends nothing."""
    again = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--key", "k1", "--no-save", "--json")

    assert (0, ref) == (again.code, again.json["ref"])
    assert f"job {ref}, which had this key already" in again.err


def test_wait_without_an_api_key_waits_for_a_listener(invoke: Invoke) -> None:
    """`wait` without an API key waits for a listener on the same store until its timeout."""
    left = leave(invoke)
    ended = invoke("wait", left, *STORE, "--timeout", "0.1")

    assert 5 == ended.code
    assert "without KIE_API_KEY the status cannot be polled" in ended.err
    assert f"audioext wait {left} --store sqlite:///jobs.db" in ended.err


def test_wait_goes_on_after_a_failed_status_call(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed status call is reported with its provider, and does not end the wait."""
    left = leave(invoke)
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    # The submit's sandbox has ended, and a new one does not know the task.
    ended = invoke("wait", left, *STORE, "--sandbox", "--timeout", "0.1")

    assert 5 == ended.code
    assert "the status could not be polled, still waiting" in ended.err


# --- show and jobs ---------------------------------------------------------------------------------------


async def store_journal(*entries: Entry) -> str:
    """Store a journal as the oldest job of the store, and return its ref."""
    asked, ref = load_asked(entries[0].body), "r" * 24
    index = Index(ref=ref, provider=asked.provider, account=asked.account, created_at=entries[0].at)
    store = open_store(STORE[1])
    await store.open()
    await store.create(entries[0], index, limits=ax.Limits(), now=entries[0].at)
    await store.append(ref, entries[1:], provider=asked.provider)
    await store.aclose()
    return ref


def begun(at: float, **fields: object) -> Entry:
    """Return the first entry of a kie.ai journal."""
    request = ax.AddInstrumental(file="voice.wav", title="\x1b[31mred", tags="soft", negative_tags="")
    asked = Asked(provider="kie", account="kie", request=request)
    return make_entry("request", at, body=dump_asked(attrs.evolve(asked, **fields)))  # type: ignore[arg-type]  # a test's


def journal_of(ended: Ended) -> list[list[str]]:
    """Return the words of each journal line that `show` printed, without the time."""
    lines = ended.out.partition("\njournal\n")[2].partition("\n\n")[0].splitlines()
    return [re.sub(r"\+.+? (s|min)  +", "", line).split() for line in lines]


def test_show_prints_all_of_a_job(invoke: Invoke, ref: str) -> None:
    """`show` prints state, request, journal and tracks, and accepts a prefix of the ref."""
    ended = invoke("show", ref[:-3], *STORE)

    assert 0 == ended.code
    for line in (r"job +" + ref, r"state +complete", r"provider +kie", r"continue_at +2", r'meta +{"chat": 42}'):
        assert re.search(rf"^{line}$", ended.out, re.MULTILINE)
    states = ["text", "first", "complete"]
    heard = [[f"{number}", "webhook", state] for number, state in enumerate(states, 3)]
    assert [["1", "request", "submitting"], ["2", "answer", "200", "submitted"], *heard] == journal_of(ended)
    assert 2 == ended.out.count("/files/tracks/")


def test_show_as_json(invoke: Invoke, ref: str) -> None:
    """`show --json` has times in seconds since the submit and as ISO 8601."""
    shown = invoke("show", ref, *STORE, "--json").json

    assert (ref, "complete", "extend", "V5") == (shown["ref"], shown["state"], shown["operation"], shown["model"])
    assert ["submitted", "text", "first", "complete"] == [item["event"] for item in shown["timeline"]]
    assert "by webhook" == shown["timeline"][-1]["how"]
    assert ["submitting", "submitted", "text", "first", "complete"] == [item["state"] for item in shown["journal"]]
    assert 2 == len(shown["tracks"])
    assert ["applied"] * 3 == [delivery["verdict"] for delivery in shown["deliveries"]]
    assert TRACK == shown["request"]["audio_id"]


def test_show_goes_back_in_time(invoke: Invoke, ref: str) -> None:
    """`show --at 4` is the job after four entries: the first track can be played, the second not yet."""
    then, in_json = invoke("show", ref, *STORE, "--at", "4"), invoke("show", ref, *STORE, "--at", "4", "--json").json
    beyond = invoke("show", ref, *STORE, "--at", "9")

    assert re.search(r"^state +first$", then.out, re.MULTILINE)
    assert 4 == len(journal_of(then))
    assert 1 == then.out.count("/files/tracks/")
    assert ("first", 4) == (in_json["state"], len(in_json["journal"]))
    assert 2 == beyond.code
    assert "--at: the journal has the entries 1 to 5, not 9" in beyond.err


def test_show_prints_what_came_byte_for_byte(invoke: Invoke, ref: str) -> None:
    """`show --body 5` prints only the body of the last webhook, byte for byte."""
    body = json.loads(invoke("show", ref, *STORE, "--body", "5").out)

    assert "complete" == body["data"]["callbackType"]
    for option in (["--json"], ["--at", "1"]):
        refused = invoke("show", ref, *STORE, "--body", "5", *option)
        assert 2 == refused.code
        assert f"leave out {option[0]}" in refused.out + refused.err


def test_a_failed_job_says_why(invoke: Invoke) -> None:
    """`show` prints a failure's reason, code and cost, and `jobs` the vendor's message."""
    ended = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--fault", "error=complete:531", "--json")
    ref, words = ended.json["error"]["ref"], ended.json["error"]["message"]

    plain, in_json = invoke("show", ref, *STORE), invoke("show", ref, *STORE, "--json").json
    (listed,) = [json.loads(line) for line in invoke("jobs", *STORE, "--json").out.splitlines()]

    assert re.search(r"^failure +\w+, code 531: ", plain.out, re.MULTILINE)
    assert re.search(r"^charged +no$", plain.out, re.MULTILINE)
    assert "failed" == journal_of(plain)[-1][2]
    assert ("531", False) == (in_json["failure"]["code"], in_json["failure"]["charged"])
    assert "failed" == in_json["timeline"][-1]["event"]
    assert listed["problem"] in words


async def test_a_song_with_a_failed_track_says_so(invoke: Invoke) -> None:
    """Every command that shows a song with one failed track says which share of it failed, and why."""
    said, paths = "1 of 2 tracks failed: too quiet", list[str]()
    async with short_sandbox() as sandbox, aiohttp.ClientSession() as vendor:
        provider = ax.MusicGpt(sandbox.api_key, base_url=sandbox.bases["musicgpt"])
        sandbox.hold("text")
        web = {"public_url": "http://127.0.0.1:{port}/audio", "listen": "127.0.0.1:0", "store": STORE[1]}
        async with ax.Client(provider, **web) as client:  # type: ignore[arg-type]  # texts
            job = await client.extend(url=sandbox.tune_url, continue_at=2)
            good, bad = job.record.track_ids
            for part in (
                {"success": True, "conversion_id": good, "conversion_path": sandbox.voice_url},
                {"success": False, "conversion_id": bad, "reason": "too quiet"},
            ):
                hook = {"task_id": job.task_id, **part}
                async with vendor.post(str(sandbox.submissions[0].callback_url), json=hook) as answer:
                    assert 200 == answer.status
        calls = [("save", job.ref, "--out", "out"), ("wait", job.ref, "--no-save"), ("show", job.ref), ("jobs",)]
        for name, *rest in calls:
            ended = await aside(invoke, name, *rest, *STORE, "--json")
            table = await aside(invoke, name, *rest, *STORE)
            assert (0, 0, said) == (ended.code, table.code, ended.json["problem"])
            assert said[:24] in table.out + table.err
            paths += ended.json.get("files", [])

    assert 1 == len(paths)


def test_a_refused_submit_is_kept_with_the_vendors_words(invoke: Invoke) -> None:
    """`jobs` and `show` print the vendor's refusal of a submit that exited with 3 and has no task."""
    refused = invoke("extend", TRACK, *FULL, *FAST, *STORE, "--fault", "code=402", "--json")
    (listed,) = [json.loads(line) for line in invoke("jobs", *STORE, "--json").out.splitlines()]
    shown, table = invoke("show", listed["ref"], *STORE), invoke("jobs", *STORE)
    body = invoke("show", listed["ref"], *STORE, "--json").json

    waited = invoke("wait", listed["ref"], *STORE)

    assert (3, "refused") == (refused.code, listed["state"])
    assert (3, "show") == (waited.code, waited.hint[0])
    assert 0 == invoke(*waited.hint).code
    assert 2 == len(waited.err.splitlines())
    assert listed["problem"]
    assert listed["problem"] in refused.json["error"]["message"]
    assert listed["problem"][:30] in table.out
    assert f"problem         {listed['problem']}" in shown.out
    assert ["2", "answer", "200", "refused", *listed["problem"].split()] == journal_of(shown)[-1]
    assert "refused" == body["timeline"][-1]["event"]


async def test_show_prints_refused_calls_given_up_handlers_and_the_deadline(invoke: Invoke) -> None:
    """`show` prints a refused status call, a handler that was given up and an expired job, and escapes titles."""
    now = time.time()
    fault = Handled("first", "tell", failure=5, error="ValueError: no chat")
    outcomes = (Handled("text", "tell"), Handled("first", "tell", wait=3.0, waits=1), fault, Handled("complete"))
    bodies = (*map(msgspec.json.encode, outcomes), b"damaged")
    ref = await store_journal(
        begun(now - 200_000),
        make_entry("status", now - 100, status=429, body=b'{"code": 429, "msg": "slow down"}'),
        *(make_entry("handled", now - 50 + at, body=body) for at, body in enumerate(bodies)),
        make_entry("expired", now),
    )

    ended = await aside(invoke, "show", ref, *STORE)

    assert 0 == ended.code
    for words in ("slow down", "no chat", "expired", "2 d 7 h", "[31mred"):
        assert words in ended.out
    assert "\x1b" not in ended.out
    handled = re.findall(r" handled +\w+ *(.*)$", ended.out, re.MULTILINE)
    calls = ["tell of text: done", "tell of first: again in 3.0 s", "tell of first: ValueError: no chat"]
    assert [*calls, "all handlers of complete: done", ""] == handled


async def test_jobs_marks_what_it_cuts(invoke: Invoke) -> None:
    """A long source is cut in the middle, a long problem at its end, both with an ellipsis."""
    asked = load_asked(begun(100.0).body)
    source = ax.Extend(url="https://files.example.org/a/very/long/way/down/to/the/song.mp3", model="V5", continue_at=2)
    body = dump_asked(attrs.evolve(asked, request=source))
    refusal = b'{"code": 402, "msg": "there are too few credits in this account to extend that song"}'
    await store_journal(make_entry("request", 100.0, body=body), make_entry("answer", 101.0, status=200, body=refusal))

    listed = (await aside(invoke, "jobs", *STORE)).out

    assert "https://files.exampl…own/to/the/song.mp3" in listed
    assert "there are too few …" in listed


async def test_show_says_that_a_webhook_named_the_task(invoke: Invoke) -> None:
    """If the submit's answer was lost, the timeline says that a webhook named the task."""
    body = json.dumps({"code": 200, "msg": "ok", "data": {"callbackType": "text", "task_id": "t1", "data": []}})
    ref = await store_journal(
        begun(100.0),
        make_entry("answer", 101.0, note="the connection broke"),
        make_entry("webhook", 111.0, body=body.encode()),
    )

    shown = (await aside(invoke, "show", ref, *STORE, "--json")).json
    plain = await aside(invoke, "show", ref, *STORE)

    assert ("t1", "submitted", "by webhook") == (
        shown["task_id"],
        shown["timeline"][0]["event"],
        shown["timeline"][0]["how"],
    )
    assert ["2", "answer", "submitting", "the", "connection", "broke"] == journal_of(plain)[1]


def test_a_ref_that_several_jobs_begin_with_names_them(invoke: Invoke, ref: str) -> None:
    """A prefix that several refs share, in any case, is refused with these refs."""
    left = leave(invoke)

    ended = invoke("show", ref[:2].upper(), *STORE)

    assert 8 == ended.code
    assert f"more than one job that begins with '{ref[:2].upper()}': {ref}, {left}" in ended.err


def test_jobs_lists_the_newest_last(invoke: Invoke, ref: str) -> None:
    """`jobs` lists the newest last, and filters by open state, by meta and by count."""
    left = leave(invoke)

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
    """Without `--store`, jobs of an in-process sandbox go to their own file, which `--sandbox` reads."""
    made = invoke("extend", TRACK, *FULL, *FAST, "--no-save", "--json").json["ref"]

    assert (folder / "audioext-sandbox.db").exists()
    assert not (folder / "audioext.db").exists()
    assert 0 == invoke("show", made, "--sandbox").code
    elsewhere = invoke("show", made)
    assert 8 == elsewhere.code
    assert "there is no store at audioext.db; --sandbox looks at the sandbox's jobs, which are here; " in elsewhere.err
    assert "--sandbox" not in invoke("show", made, "--store", "sqlite:///nope.db").err


def test_an_empty_store_is_reported_as_such(invoke: Invoke) -> None:
    """An empty store is not an error, and prints nothing on stdout."""
    for command in ("jobs", "inbox"):
        ended = invoke(command, "--store", "memory://")
        assert (0, "") == (ended.code, ended.out)
        assert ended.err.startswith("no such ")


# --- the journal -----------------------------------------------------------------------------------------


def test_inbox_lists_the_deliveries_newest_first(invoke: Invoke, ref: str) -> None:
    """`inbox` lists each delivery with its verdict, newest first; the JSON has its body and never a tag."""
    plain, in_json = invoke("inbox", *STORE), invoke("inbox", ref, *STORE, "--json", "--limit", "2")

    assert ["delivery"] == [line.split()[0] for line in plain.out.splitlines()[:1]]
    assert 3 == plain.out.count(" applied ")
    rows = [json.loads(line) for line in in_json.out.splitlines()]
    assert ["complete", "first"] == [json.loads(row["body"])["data"]["callbackType"] for row in rows]
    assert [] == re.findall(r"/[0-9a-z]{24}/[\w-]{43}", plain.out + in_json.out)


def test_replaying_an_applied_delivery_changes_nothing(invoke: Invoke, ref: str) -> None:
    """Replaying an applied delivery is answered 200 and adds no entry."""
    delivery = json.loads(invoke("inbox", *STORE, "--json", "--limit", "1").out)["id"]

    replayed = invoke("replay", delivery, *STORE)
    in_json = invoke("replay", delivery[:-4], *STORE, "--json").json

    assert (0, f"delivery {delivery} of job {ref} was answered with 200\n") == (replayed.code, replayed.out)
    assert {"delivery": delivery, "ref": ref, "status": 200} == in_json
    assert 3 == len(invoke("inbox", *STORE, "--json").out.splitlines())


async def test_a_delivery_that_cannot_be_read_is_refused_again(invoke: Invoke) -> None:
    """Replaying an unreadable delivery exits with 3 and its status; `inbox` says why it was not applied."""
    await store_journal(begun(time.time()), make_entry("webhook", 111.0, body=b"nonsense", note="unreadable: nonsense"))

    (listed,) = [json.loads(line) for line in (await aside(invoke, "inbox", *STORE, "--json")).out.splitlines()]
    ended = await aside(invoke, "replay", listed["id"], *STORE, "--json")

    assert ("unreadable", "unreadable: nonsense") == (listed["verdict"], listed["note"])
    assert (3, 400) == (ended.code, ended.json["error"]["http_status"])


async def test_replay_to_a_receiver_posts_it_there(invoke: Invoke) -> None:
    """`replay --to` posts to a receiver's URL; one with another secret refuses, and a closed port is named."""
    await aside(invoke, "extend", TRACK, *FULL, *FAST, *STORE, "--no-save")
    delivery = (await aside(invoke, "inbox", *STORE, "--json", "--limit", "1")).json["id"]
    async with (
        ax.Client(store=STORE[1], public_url=HOOKS[1], listen=HOOKS[3]) as ours,
        ax.Client(public_url=HOOKS[1], listen=HOOKS[3]) as stranger,
    ):
        posted, refused, lost = [
            await aside(invoke, "replay", delivery, *STORE, "--to", str(url))
            for url in (ours.public_url, stranger.public_url, "http://127.0.0.1:9")
        ]

    assert (0, 3, 2) == (posted.code, refused.code, lost.code)
    assert "was answered with 401" in refused.err
    assert "no server answers at http://127.0.0.1:9" in lost.err
    assert "--to must look like https://" in (await aside(invoke, "replay", "x", *STORE, "--to", "nonsense")).err
    assert [] == re.findall(r"/[0-9a-z]{24}/[\w-]{43}", posted.out + refused.err + lost.err)


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("show", "x"), ("save", "x"), ("wait", "x"), ("replay", "x"), ("inbox", "x")])
def test_what_the_store_does_not_hold_is_exit_code_8(invoke: Invoke, ref: str, command: tuple[str, str]) -> None:
    """An unknown ref or delivery and a missing store are named with exit code 8, and no file is created."""
    unknown, nowhere = invoke(*command, *STORE), invoke(*command, "--store", "sqlite:///nope.db")
    listing = re.search(r"`audioext (.+?)`", unknown.err)

    assert (8, 8) == (unknown.code, nowhere.code)
    assert listing is not None
    assert ref in invoke(*shlex.split(listing[1])).out
    assert "this store holds no " in unknown.err
    assert "there is no store at nope.db" in nowhere.err
    assert not Path("nope.db").exists()


def test_a_store_that_cannot_be_read_is_exit_code_8(invoke: Invoke) -> None:
    """A file that is not a store gives a clear error."""
    Path("jobs.db").write_bytes(b"this is not a database, and long enough to be seen as such" * 20)

    ended = invoke("jobs", *STORE, "--json")

    assert (8, "StoreError") == (ended.code, ended.json["error"]["type"])


def test_saving_too_early_says_to_wait(invoke: Invoke) -> None:
    """`save` before the job is complete says to wait."""
    left = leave(invoke)
    ended = invoke("save", left, *STORE)

    assert 5 == ended.code
    assert "is not complete: it is at submitted" in ended.err
    assert f"audioext wait {left} --store sqlite:///jobs.db" in ended.err


def test_saving_dead_links_is_a_download_error(invoke: Invoke, ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`save` with dead links is a download error, and a setting bounds how long they are retried."""
    monkeypatch.setenv("AUDIOEXT_DOWNLOAD_PATIENCE", "0.1")
    ended = invoke("save", ref, *STORE)

    assert 7 == ended.code
    assert f"audioext save {ref}" in ended.err
