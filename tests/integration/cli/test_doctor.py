"""`audioext doctor` says what is wrong and how to fix it, and sets an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import audioext as ax
from tests.integration.cli.conftest import HOOKS, STORE, Invoke, aside, on_terminal, short_sandbox


def states(found: Any) -> dict[str, str]:  # JSON
    """Return the state of each report line by name."""
    return {line["name"]: line["state"] for line in found["lines"]}


async def test_all_is_well_on_a_sandbox(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Doctor checks the key, the clock, webhooks and the store, and creates no file."""
    async with short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        base = ("--base-url", sandbox.bases["kie"])
        new = await aside(invoke, "doctor", *HOOKS, *STORE, *base, "--json")
        files = list(folder.iterdir())
        async with ax.Client(store=STORE[1]):
            pass
        old = await aside(invoke, "doctor", *HOOKS, *STORE, *base)

    assert (0, True) == (new.code, new.json["ok"]), new.out
    assert {"name", "webhook", "latency", "body", "length", "key of kie", "clock", "store", "versions"} == {
        *states(new.json)
    }
    assert "warning" == states(new.json)["store"]
    assert [] == files
    assert 0 == old.code
    assert "ok       store: it can be written" in old.out
    assert sandbox.api_key not in new.out + new.err + old.out + old.err


def test_a_missing_key_or_public_url_is_not_a_failure(invoke: Invoke) -> None:
    """A missing key or public URL is not a failure, as a listener needs no key and a poller no URL."""
    ended = invoke("doctor", "--json")

    assert 0 == ended.code
    assert "KIE_API_KEY, MUSICGPT_API_KEY, SUNOAPI_API_KEY, VIDGO_API_KEY" in ended.json["lines"][0]["advice"]
    assert "ok" == states(ended.json)["public_url"]


def test_a_failed_line_gives_an_exit_code(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any failed line gives exit code 9, and a public URL that the provider would refuse is such a line."""
    monkeypatch.setenv("VIDGO_API_KEY", "0123456789abcdef")
    ended = invoke("doctor", "--public-url", "http://127.0.0.1:1/audio", "--listen", "none", "--json")

    assert 9 == ended.code
    assert {"public_url": "failed", "name": "failed", "webhook": "failed"} == {
        name: state for name, state in states(ended.json).items() if state == "failed"
    }
    said = json.dumps(ended.json)
    assert "vidgo would never call the --public-url http://127.0.0.1:1/audio: vidgo calls only https addresses" in said


def test_advice_names_options(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice is about options of the command line, not about arguments in Python."""
    monkeypatch.setenv("KIE_API_KEY", "made-up")
    said = invoke("doctor", "--base-url", "http://127.0.0.1:1/kie", "--store", "memory://").out

    assert "check that http://127.0.0.1:1/kie is the right --base-url, and" in said
    assert "give it a --store, such as sqlite:///jobs.db" in said


def test_a_terminal_shows_the_states_in_colour(folder: Path) -> None:
    """Each line has the colour of its state, with the advice below the finding."""
    shown = on_terminal(80, "doctor")

    assert "\x1b[33mwarning  keys: none is known" in shown
    assert "set one of KIE_API_KEY" in shown
    assert "\x1b[32mok       versions: " in shown
