"""A user's own provider, written with the kit, works like ours."""

from __future__ import annotations

import pytest

import audioext as ax
from audioext.models.events import Progress, Refused, Submitted
from audioext.models.requests import AddInstrumental, Extend
from audioext.providers.base import Provider
from audioext.providers.kit import FieldRules, HostedAccount
from examples.custom_provider import Tape
from tests.unit.providers.conftest import Kit

SOURCE = "https://files.example/a.mp3"


def test_the_example_is_a_provider(kit: Kit) -> None:
    """The example's few facts are enough for submit, status and webhook."""
    tape = Tape("k")
    assert isinstance(tape, Provider)
    assert ("tape", "TAPE_API_KEY", True) == (tape.info.name, tape.info.key_variable, tape.info.has_key)
    sent = tape.build_submit(Extend(url=SOURCE, prompt="p"), None)
    assert ("https://api.tape.example/make", b'{"url":"%b","prompt":"p"}' % SOURCE.encode()) == (
        str(sent.url),
        sent.body,
    )
    assert "https://api.tape.example/state/task-1" == str(tape.build_status(kit.make_record()).url)
    assert (Progress(task_id="t", claimed_stage=ax.Stage.COMPLETE),) == tape.parse_webhook(b'{"id":"t","done":true}')


def test_a_misspelt_field_is_refused() -> None:
    """A field that no request has would never be taken."""
    with pytest.raises(TypeError, match=r"a request has no field contine_at; did you mean continue_at\?"):
        FieldRules(wire_name="own", takes=frozenset({"url", "contine_at"}))
    assert {"provider", "source_duration"} == FieldRules(wire_name="own", takes=frozenset()).taken[ax.Operation.EXTEND]


def test_an_unfinished_provider_says_what_it_lacks() -> None:
    """The error names the methods of the protocol that are still to be written."""

    class Unfinished(HostedAccount):
        vendor = Tape.vendor

    with pytest.raises(ax.ConfigError, match=r"is not a provider: it lacks build_submit, parse_status, parse_webhook$"):
        ax.Client(Unfinished("k"))  # type: ignore[arg-type]  # wrong on purpose


def test_the_kit_reads_its_answers() -> None:
    """The kit finds ids, refusals and errors in the answers of the example."""
    tape = Tape("k")
    assert Submitted(task_id="t") == tape.parse_submit(ax.HttpResponse(status=200, body=b'{"id":"t"}'))
    refused = tape.parse_submit(ax.HttpResponse(status=401, body=b'{"error":"who are you"}'))
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, ax.AuthError)
    with pytest.raises(ax.ProviderDownError):
        tape.parse_status(ax.HttpResponse(status=502, body=b"<html>"))


def test_the_kit_checks_its_fields() -> None:
    """A field that the example does not take is refused, and the message names the providers that do."""
    tape = Tape("k")
    assert [] == list(tape.check(Extend(url=SOURCE, prompt="p", provider="tape", source_duration=3)))
    (problem,) = tape.check(Extend(url=SOURCE, style="jazz"))
    assert "style: tape does not take it; kie, kie-jobs, sunoapi and vidgo do" == str(problem)
    with pytest.raises(ax.UnsupportedError):
        tape.check(AddInstrumental(url=SOURCE, title="t", tags="a", negative_tags=""))
