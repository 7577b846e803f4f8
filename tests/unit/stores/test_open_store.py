"""What `open_store` accepts, and how it refuses the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from audioext.errors import ConfigError
from audioext.stores import MemoryStore, open_store
from audioext.stores.sqlite import SqliteStore


@pytest.mark.parametrize("url", [None, "memory://", "memory:"])
def test_memory_is_the_default(url: str | None) -> None:
    """Without a URL, or with `memory://`, a store is in memory."""
    assert isinstance(open_store(url), MemoryStore)


def test_a_store_is_left_as_it_is() -> None:
    """A store object is returned as it is."""
    store = MemoryStore()

    assert store is open_store(store)


@pytest.mark.parametrize(
    "url", ["jobs.db", "postgres://host/db", "", "sqlite://jobs.db", "sqlite:///", "sqlite:jobs.db", "sqlite:///a\0.db"]
)
def test_an_unknown_url_lists_the_forms(url: str) -> None:
    """Any other URL raises `ConfigError`, which lists the valid forms."""
    with pytest.raises(ConfigError, match=r"memory://.*sqlite:///relative\.db.*redis://"):
        open_store(url)


@pytest.mark.parametrize("value", [3, [], Path("jobs.db")])
def test_an_object_that_is_not_a_store_is_refused(value: object) -> None:
    """An object without the store protocol is refused."""
    with pytest.raises(ConfigError, match="is not a store; use"):
        open_store(value)  # type: ignore[arg-type]  # what a user may do


def test_an_unfinished_store_says_what_it_lacks() -> None:
    """The error names the methods of the protocol that are still to be written."""

    class Unfinished(MemoryStore):
        purge = claim = property()  # as if they were not written

    with pytest.raises(ConfigError, match="is not a store: it lacks claim, purge; use"):
        open_store(Unfinished())


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "unix"])
def test_a_missing_extra_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis URL without the extra raises an error that says what to install."""
    monkeypatch.setitem(sys.modules, "audioext.stores.redis", None)  # as if it could not be imported

    way = r'install "audioext\[redis\]", or in a clone: .* install "\.\[redis\]"'
    with pytest.raises(ConfigError, match=f"the Redis store needs more packages: .* {way}"):
        open_store(f"{scheme}://localhost")


def test_a_password_is_not_repeated() -> None:
    """The error for an unknown URL does not repeat its password."""
    with pytest.raises(ConfigError) as caught:
        open_store("postgres://me:hunter2@host/db")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///jobs.db", SqliteStore("jobs.db")),
        ("sqlite:////var/lib/a%20b.db", SqliteStore("/var/lib/a b.db")),
        ("sqlite:///jobs.db?synchronous=FULL", SqliteStore("jobs.db", synchronous="full")),
        ("sqlite:///jobs.db?synchronous=normal", SqliteStore("jobs.db")),
    ],
)
def test_urls_say_where_and_how(url: str, expected: SqliteStore) -> None:
    """Three slashes are a relative path, four an absolute one, and `?synchronous=` sets the durability."""
    found = open_store(url)

    assert isinstance(found, SqliteStore)
    assert (expected.path, expected.synchronous) == (found.path, found.synchronous)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///jobs.db?synchronous=off",
        "sqlite:///jobs.db?mode=ro",
        "sqlite:///:memory:",
        "sqlite:///a#b.db",
        "sqlite://host/jobs.db",
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    """An unknown option, a file in memory or a fragment raises `ConfigError` with the valid forms."""
    with pytest.raises(ConfigError, match="sqlite:////absolute"):
        open_store(url)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"path": 5}, "path must be the path of a file, not 5"),
        ({"path": b"jobs.db"}, "path must be the path of a file"),
        ({"synchronous": "off"}, 'synchronous must be "normal" or "full", not \'off\''),
        ({"driver": "mysql"}, 'driver must be "apsw" or "sqlite3"'),
        ({"busy_timeout": -1}, "busy_timeout must be a finite number from 0 on"),
    ],
)
def test_a_file_store_is_told_how_it_can_work(arguments: dict[str, Any], says: str) -> None:
    """A wrong argument of `SqliteStore` is refused: `synchronous="off"` would lose commits without a word."""
    with pytest.raises(ConfigError, match=says):
        SqliteStore(**{"path": "jobs.db", **arguments})
