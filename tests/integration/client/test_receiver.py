"""Deliveries: the answer to each kind, which job they may change, and what is never shown."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_string
from http.client import HTTPMessage
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url, mask
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import SECRET, WEB, MakeClient, MakeSandbox
from tests.support.api import Api, callback


def complete(task_id: str | None = "t") -> bytes:
    """Return kie.ai's complete callback."""
    return json.dumps(callback("complete", task_id, track="one")).encode()


@pytest.fixture
async def client() -> ax.Client:
    """Return a client that is not open, with its own secret."""
    return ax.Client(ax.Kie("key"), public_url="https://hooks.test", listen=None, secrets=[SECRET])


def path_of(ref: str, provider: str = "kie", secret: bytes = SECRET) -> str:
    """Return the callback path that we issue for *ref*."""
    return callback_url(URL("https://hooks.test"), secret, provider, ref).raw_path


async def accept(client: ax.Client, path: str, body: bytes, **headers: str) -> int:
    """Feed one delivery to the inbox."""
    return await client.inbox.accept(ax.Webhook(path=path, headers=headers, body=body))


async def test_a_stranger_is_answered_401(client: ax.Client) -> None:
    """A path whose tag is missing, truncated, for another ref or by another secret is answered 401."""
    ref, other = "r" * 24, "s" * 24
    good = path_of(ref)
    async with client:
        for bad in (
            good[:-1],
            path_of(other).replace(other, ref),
            path_of(ref, secret=b"another secret of length"),
            path_of(ref, provider="vidgo").replace("/vidgo/", "/kie/"),
        ):
            assert 401 == await accept(client, bad, complete())


async def test_unknown_routes_are_404(client: ax.Client) -> None:
    """A path that is not a callback path, or names no provider, is answered 404."""
    async with client:
        assert 404 == await accept(client, "/", complete())
        assert 404 == await accept(client, "/kie/short/tag", complete())
        assert 404 == await accept(client, path_of("r" * 24, provider="nobody"), complete())


async def test_an_orphan_is_kept_and_answered_200(client: ax.Client) -> None:
    """A delivery with a valid tag for a ref that is not in the store is journaled as an orphan and answered 200."""
    async with client:
        assert 200 == await accept(client, path_of("r" * 24), complete())
        (delivery,) = [delivery async for delivery in client.deliveries()]

    assert ("orphan", complete()) == (delivery.verdict, delivery.body)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, bytes.decode])
@pytest.mark.parametrize(
    "spelt", [str, str.encode, lambda path: URL(f"https://hooks.test{path}"), "https://x{}".format]
)
async def test_a_delivery_is_taken_as_frameworks_give_it(
    kind: Callable[[bytes], bytes], spelt: Callable[[str], str], client: ax.Client
) -> None:
    """`accept` takes the body as text or a buffer, and the path as a URL or bytes."""
    async with client:
        hook = ax.Webhook(path=spelt(path_of("r" * 24)), headers={}, body=kind(complete()))
        assert 200 == await client.inbox.accept(hook)
        (delivery,) = [delivery async for delivery in client.deliveries()]

    assert complete() == delivery.body


@pytest.mark.parametrize(
    "headers",
    [
        [(b"User-Agent", b"kie")],  # ASGI
        {"user-agent": ["kie", "x"], "length": 5},  # some gateways give lists of values
        {b"USER-AGENT": b"kie"},
        [("user-agent", "kie")],
        message_from_string("User-Agent: kie", HTTPMessage),  # http.server
        None,
    ],
)
async def test_headers_are_taken_as_frameworks_give_them(headers: Any, client: ax.Client) -> None:
    """`accept` takes headers as bytes, pairs or lists of values as well as a mapping of strings, and None as none."""
    async with client:
        assert 200 == await client.inbox.accept(ax.Webhook(path=path_of("r" * 24), headers=headers, body=complete()))
        (delivery,) = [delivery async for delivery in client.deliveries()]

    assert (None if headers is None else "kie") == delivery.headers.get("user-agent")


@attrs.frozen
class OtherwiseSigned(ax.Kie):
    """A provider whose signature comes in another header."""

    vendor = attrs.evolve(ax.Kie.vendor, signature_headers=("X-Mine",))


async def test_the_headers_of_a_signature_are_kept_as_the_provider_names_them() -> None:
    """A delivery keeps the headers that its provider signs with, whatever their names, and no other stranger's."""
    async with ax.Client(OtherwiseSigned("key"), public_url="https://hooks.test", listen=None, secrets=[SECRET]) as own:
        headers = {"x-mine": "proof", "Cookie": "secret", "X-Webhook-Signature": "another's"}
        assert 200 == await accept(own, path_of("r" * 24), complete(), **headers)
        (delivery,) = [delivery async for delivery in own.deliveries()]

    assert {"x-mine": "proof"} == dict(delivery.headers)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bytes])
async def test_a_compressed_body_is_decompressed_if_the_framework_did_not(
    pack: Callable[[bytes], bytes], client: ax.Client
) -> None:
    """A body may still be compressed, as under WSGI, or already unpacked although Content-Encoding is still there."""
    encoding = "deflate" if pack is zlib.compress else "gzip"
    packed = {"Content-Encoding": encoding}
    async with client:
        assert 200 == await accept(client, path_of("r" * 24), pack(complete()), **packed)
        assert 400 == await accept(client, path_of("r" * 24), gzip.compress(complete())[:-9], **packed)
        assert 415 == await accept(client, path_of("r" * 24), gzip.compress(b""), **{"Content-Encoding": "br"})
        assert 413 == await accept(client, path_of("r" * 24), gzip.compress(bytes(1_048_577)), **packed)
        (delivery,) = [delivery async for delivery in client.deliveries()]

    assert complete() == delivery.body


@pytest.mark.parametrize("received_at", ["now", float("nan"), float("inf"), -5.0, True, datetime.now(UTC)])
async def test_a_wrong_received_at_is_refused(received_at: Any, client: ax.Client) -> None:
    """A `received_at` that is not a Unix time is refused before anything is stored."""
    async with client:
        with pytest.raises(ax.ConfigError, match=r"received_at=.*, which is not a Unix time"):
            await client.inbox.accept(ax.Webhook(path=path_of("r" * 24), body=complete(), received_at=received_at))
        assert [] == [delivery async for delivery in client.deliveries()]


@pytest.mark.parametrize("path", [None, 5])
async def test_a_wrong_path_is_refused(path: Any, client: ax.Client) -> None:
    """The path may be text, bytes or a URL; the error for anything else says what to pass."""
    async with client:
        good = path_of("r" * 24)
        assert "kie" == client.inbox.admit(good.encode()).provider == client.inbox.admit(URL(good)).provider  # type: ignore[arg-type]  # some frameworks give these types
        with pytest.raises(ax.ConfigError, match=r"path must be str, not"):
            client.inbox.admit(path)
        with pytest.raises(ax.ConfigError, match=r"path must be str, not"):
            await client.inbox.accept(ax.Webhook(path=path, body=complete()))


@pytest.mark.parametrize("body", [None, {"code": 200}, 5])
async def test_a_wrong_delivery_is_refused(body: Any, client: ax.Client) -> None:
    """A body that was parsed already, or no Webhook at all, raises an error that names what is expected."""
    async with client:
        path = path_of("r" * 24)
        hooks: list[Any] = [ax.Webhook(path=path, body=body), body, SimpleNamespace(path=path, headers={}, body=b"{}")]
        for hook in hooks:
            with pytest.raises(ax.ConfigError, match="accept takes a Webhook") as caught:
                await client.inbox.accept(hook)
            assert "/kie/" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"code":200}', b"\xff\xfe", b"[" * 100_000])
async def test_a_malformed_body_is_400(client: ax.Client, body: bytes) -> None:
    """A body that cannot be read is answered 400 and stored as unreadable or refused."""
    async with client:
        assert 400 == await accept(client, path_of("r" * 24), body)
        (delivery,) = [delivery async for delivery in client.deliveries()]

    assert delivery.verdict in {"unreadable", "refused"}


async def test_a_body_over_the_limit_is_413(client: ax.Client) -> None:
    """A body over a mebibyte is answered 413, as every webhook is smaller."""
    async with client:
        assert 413 == await accept(client, path_of("r" * 24), b" " * (1_048_576 + 1))


async def test_another_tasks_webhook_is_refused(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A delivery with a valid tag that names another task than the job's is answered 401 and changes nothing."""
    client = await make_client(sandbox, secrets=[SECRET])
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job

    assert 401 == await accept(client, path_of(job.ref), complete("somebody else's"))
    assert song == await job


async def test_a_webhook_without_a_task_id_counts_for_its_paths_job(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """A body that names no task counts for the job of its path."""
    sandbox = await make_sandbox(faults=["lose_response", "drop"])
    client = await make_client(sandbox, secrets=[SECRET])
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert 200 == await accept(client, path_of(job.ref), complete(None))
    assert ["one"] == [track.id for track in (await job).tracks]


async def test_repeats_and_late_webhooks_are_answered_200(api: Api, open_client: MakeClient) -> None:
    """Exact repeats are answered 200 and only counted; webhooks after COMPLETE are stored and joined."""
    store = ax.MemoryStore()
    client = await open_client(store=store, **WEB)
    job = await client.extend(audio_id="x", model="V5")

    stages = ["text", "text", "complete", "complete", "complete", "first"]
    assert [200] * 6 == [await api.call_back(stage) for stage in stages]

    deliveries = [delivery async for delivery in client.deliveries(job.ref)]
    assert ["applied"] * 3 == [delivery.verdict for delivery in deliveries]
    stored = await store.read(job.ref)
    assert stored is not None
    assert 3 == stored.repeats
    assert 1 == len((await job).tracks)


async def test_a_delivery_can_be_replayed(api: Api, open_client: MakeClient) -> None:
    """A stored delivery is replayed by its id and answered like a repeat; an unknown id raises an error."""
    client = await open_client(**WEB)
    job = await client.extend(audio_id="x", model="V5")
    assert 200 == await api.call_back("complete")
    (delivery,) = [delivery async for delivery in client.deliveries(job.ref)]

    assert 200 == await client.replay(delivery.id)

    assert delivery == await client.delivery(delivery.id)
    assert [delivery] == [delivery async for delivery in client.deliveries()]
    for unknown in ("nothing", f"{job.ref}-nothing", f"{'r' * 24}-{delivery.id}"):
        with pytest.raises(ax.RequestError, match="holds no delivery"):
            await client.replay(unknown)


async def test_a_timeline_has_the_record_after_each_entry(api: Api, open_client: MakeClient) -> None:
    """Each entry of a job's journal comes with the record that all entries up to it give."""
    client = await open_client(**WEB)
    job = await client.extend(audio_id="x", model="V5")
    for stage in ("text", "first", "complete"):
        assert 200 == await api.call_back(stage)

    timeline = await client.timeline(job.ref)

    assert ["request", "answer", "webhook", "webhook", "webhook"] == [entry.kind for entry, _ in timeline]
    stages = [record.stage for _, record in timeline if record is not None]
    assert [None, ax.Stage.SUBMITTED, ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE] == stages
    assert job.record == timeline[-1][1]


async def test_a_delivery_that_names_another_jobs_task_is_refused(api: Api, open_client: MakeClient) -> None:
    """A delivery with one job's valid tag and another job's task changes neither job, and is kept in the journal."""
    api.codes = [0]
    client = await open_client(**WEB)
    unknown = await client.extend(audio_id="x", model="V5")
    other = await client.extend(audio_id="x", model="V5")
    assert (None, "task-2") == (unknown.task_id, other.task_id)

    assert 401 == await api.call_back("complete", "task-2", post=0)

    assert (None, None) == ((await client.job(unknown.ref)).task_id, (await client.job(unknown.ref)).stage)
    assert ax.Stage.SUBMITTED is (await client.job(other.ref)).stage
    assert ["refused"] == [delivery.verdict async for delivery in client.deliveries(unknown.ref)]


async def test_with_confirm_a_complete_is_checked_by_a_status_call(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """With `confirm="always"` a forged COMPLETE with a valid tag does not complete the job."""
    sandbox = await make_sandbox(speed=1)
    client = await make_client(sandbox, secrets=[SECRET], confirm="always")
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert 200 == await accept(client, path_of(job.ref), complete(job.task_id))
    await job.refresh()

    assert ax.Verdict.OPEN is job.verdict


async def test_confirm_still_completes_a_real_job(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """With `confirm="always"` the status call after a COMPLETE brings the song."""
    sandbox = await make_sandbox()
    client = await make_client(sandbox, confirm="always")
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert "poll" == (await job.complete).source


async def test_signed_webhooks_are_verified(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """With a webhook key valid signatures pass and bad ones are answered 401, after which the poll brings the song."""
    never, soon = ax.Pace(first=300.0, every=300.0, quiet=300.0), ax.Pace(first=0.02, every=0.02, quiet=0.2)
    for fault, pace, verdict in ((), never, "applied"), (("bad_signature",), soon, "refused"):
        sandbox = await make_sandbox(hmac_key="demo-hmac-key", faults=fault)
        provider = ax.Kie(
            sandbox.api_key,
            base_url=sandbox.bases["kie"],
            webhook_key=["next-key", "demo-hmac-key"],
            pace=pace,
        )
        client = await make_client(sandbox, provider)
        job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
        await job
        await sandbox.settled()

        assert verdict in {delivery.verdict async for delivery in client.deliveries(job.ref)}


@pytest.mark.parametrize("poll", [False, True])
async def test_nothing_secret_is_ever_shown(
    poll: bool, make_sandbox: MakeSandbox, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """No key, tag or webhook key is in any repr, log line, error text or journal entry."""
    caplog.set_level(logging.DEBUG)
    sandbox = await make_sandbox(api_key="very-secret-api-key", hmac_key="very-secret-hmac-key", faults=["code=422*1"])
    provider = ax.Kie(
        "very-secret-api-key",
        base_url=sandbox.bases["kie"],
        webhook_key="very-secret-hmac-key",
        pace=ax.Pace(first=0.01),
    )
    client = await make_client(sandbox, provider, poll=poll, secrets=["very-secret-tag-secret"])
    with pytest.raises(ax.ProviderError) as caught:
        await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job
    await sandbox.settled()
    deliveries = [delivery async for delivery in client.deliveries()]
    wrong = ax.Kie("another-very-secret-key", base_url=sandbox.bases["kie"])
    other = await make_client(sandbox, wrong, poll=True)
    with pytest.raises(ax.AuthError) as refused:
        await other.extend(audio_id=sandbox.track_ids[0], model="V5")

    tag = callback_url(URL("http://x.test"), b"very-secret-tag-secret", "kie", job.ref).name
    shown = [
        *(repr(thing) for thing in (provider, wrong, client, client.inbox, client.receiver, job, job.record, song)),
        *(repr(delivery) + str(delivery.headers) + delivery.path for delivery in deliveries),
        repr(caught.value) + str(caught.value) + str(refused.value) + repr(refused.value),
        *(
            record.getMessage() + str(record.exc_info)
            for record in caplog.records
            if record.name.startswith("audioext")
        ),
    ]
    assert not [text for text in shown if "very-secret" in text or tag in text]


def test_mask_hides_callback_and_file_secrets() -> None:
    """The mask hides the secrets of callback and file URLs and leaves what is public."""
    assert f"/audio/kie/{'r' * 24}/***" == mask(f"/audio/kie/{'r' * 24}/{'T' * 43}")
    assert "/files/***/a.wav" == mask("/files/abc-DEF_123/a.wav")


async def test_a_foreign_tag_is_warned_of_once(client: ax.Client, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred deliveries with a foreign tag give one warning, as two secrets in one service lose callbacks."""
    async with client:
        path = callback_url(URL("https://hooks.test"), b"another secret than ours", "kie", "r" * 24).raw_path
        assert {401} == {await client.inbox.accept(ax.Webhook(path=path, body=complete())) for _ in range(100)}

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["a callback of kie for job " + "r" * 24] == [warning.partition(" has ")[0] for warning in warnings]
