"""The import contracts in pyproject.toml list every module that they should; `lint-imports` checks the rest."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_every_provider_is_kept_from_the_others() -> None:
    """Every provider is listed in the contract that providers never import each other."""
    (contract,) = (each for each in CONTRACTS if each["type"] == "independence")
    found = {path.stem for path in (ROOT / "audioext" / "providers").glob("[!_]*.py")} - {"base", "kit"}

    assert {f"audioext.providers.{name}" for name in found} == set(contract["modules"])


def test_all_of_http_but_the_transport_is_kept_from_io() -> None:
    """Every module of `http/` but the transport is listed in the contract that keeps it free of I/O."""
    (contract,) = (each for each in CONTRACTS if "audioext.models" in each.get("source_modules", ()))
    found = {path.stem for path in (ROOT / "audioext" / "http").glob("[!_]*.py")} - {"transport"}

    assert {f"audioext.http.{name}" for name in found} == {
        name for name in contract["source_modules"] if name.startswith("audioext.http.")
    }
