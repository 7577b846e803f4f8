"""A short run of the simulation; `python -m tests.security.simulate` lives as many universes as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

UNIVERSES = 40


def test_nothing_is_lost_or_paid_twice_in_simulated_universes() -> None:
    """Power cuts, partitions, clocks that step, a store that is away and a provider that errs: all comes to its end."""
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
