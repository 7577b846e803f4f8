"""A short run of the simulation; `python -m tests.security.simulate` runs more universes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import audioext as ax
from audioext.models.entries import Entry, Index
from audioext.stores.base import Appended
from tests.support.lines import Line

UNIVERSES = 40


def test_nothing_is_lost_or_paid_twice_in_simulated_universes() -> None:
    """With crashes, partitions, clock steps, store outages and provider errors, nothing is lost or paid twice."""
    pytest.importorskip("simloom", reason="simloom needs Python 3.12")
    command = [sys.executable, "-m", "tests.security.simulate", "--seeds", f"0-{UNIVERSES - 1}"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr


class ForgetfulLine(Line):
    """A connection to a store that acknowledges webhooks and does not keep them."""

    async def append(  # noqa: PLR0913 - the protocol's
        self,
        ref: str,
        entries: Sequence[Entry],
        *,
        provider: str,
        index: Index | None = None,
        known: int = 0,
        look_at: float = 0.0,
        release: bool = False,
    ) -> Appended:
        """Pass all other entries on."""
        kept = [entry for entry in entries if entry.kind != "webhook"]
        return await super().append(
            ref, kept, provider=provider, index=index, known=known, look_at=look_at, release=release
        )


def test_a_seed_is_a_universe() -> None:
    """The same seed gives the same events and counts."""
    pytest.importorskip("simloom", reason="simloom needs Python 3.12")
    from tests.security.simulate.universe import run_universe  # noqa: PLC0415 - it needs simloom

    first, again = run_universe(5), run_universe(5)

    assert None is first.error
    assert first == again


def test_a_store_that_forgets_is_found_out() -> None:
    """The simulation finds a store that acknowledges entries without keeping them."""
    pytest.importorskip("simloom", reason="simloom needs Python 3.12")
    from tests.security.simulate.universe import run_universe  # noqa: PLC0415 - it needs simloom

    error = run_universe(5, ForgetfulLine(ax.MemoryStore())).error

    assert isinstance(error, AssertionError)
    assert "was answered 200 and is in no journal" in str(error)
