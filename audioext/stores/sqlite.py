"""The store in one SQLite file: durable, shared by the processes of one machine, committed in batches.

Its methods run those of `_sqlite_session` on threads, so that nothing blocks the event loop.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial, wraps
from os import PathLike
from pathlib import Path
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

from attrs import define, field

from audioext.errors import StoreError, cut, how_to_install
from audioext.models import checks
from audioext.models.entries import MAX_DELIVERY_BYTES
from audioext.stores._engine import EngineStore, paged
from audioext.stores._sqlite_file import DatabaseFile, Driver, Row, Synchronous, default_driver, has_reset_bug
from audioext.stores._sqlite_session import LAST, MOST_LEAVING, PAGE_JOBS, Session
from audioext.stores._sqlite_thread import Writer
from audioext.stores.base import Delivery, Stored

__all__ = ["BUSY_TIMEOUT_SECONDS", "Driver", "SqliteStore", "has_reset_bug"]

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 10.0
"""How long an append waits for other processes' appends; after that a webhook is answered 503, to be sent again."""

_is_path = checks.setting(checks.must_be("the path of a file", checks.is_path))
_is_mode = checks.setting(checks.one_of('"normal" or "full"', get_args(Synchronous)))
_is_driver = checks.setting(checks.one_of('"apsw" or "sqlite3"', get_args(Driver)))
_is_time = checks.setting(checks.from_on(0))


def _method(
    work: Callable[Concatenate[Session, P], T], *, writes: bool
) -> Callable[Concatenate[SqliteStore, P], CoroutineType[Any, Any, T]]:
    """Return the method that runs *work* on a thread."""

    @wraps(work)
    async def method(store: SqliteStore, /, *given: P.args, **named: P.kwargs) -> T:
        writer = store._opened()  # noqa: SLF001 - it is a method of the store
        return await (writer if writes else writer.reader).run(work, *given, **named)

    return method  # type: ignore[return-value]  # to mypy an async function returns any coroutine


@define(eq=False)
class SqliteStore(EngineStore[Writer]):
    """The whole store protocol on one SQLite file, which several processes of one machine may share.

    *path* is relative to the working folder. *synchronous* `"normal"` survives a crash of the process at any moment,
    but a power failure can lose about the last second; `"full"` waits for the disk with every batch of appends and
    loses nothing then either. *busy_timeout* (seconds) is how long an append waits for one of another process.
    *driver* is apsw if it is installed, else Python's own sqlite3. Do not open the file with another copy of SQLite in
    the same process: closing that one would drop this one's locks.

    Raises:
        ConfigError: an argument has a wrong type or value.
    """

    path: str | PathLike[str] = field(validator=_is_path)
    synchronous: Synchronous = field(default="normal", kw_only=True, validator=_is_mode)
    busy_timeout: float = field(default=BUSY_TIMEOUT_SECONDS, kw_only=True, validator=_is_time)
    driver: Driver = field(factory=default_driver, kw_only=True, validator=_is_driver)

    create = _method(Session.create, writes=True)
    append = _method(Session.append, writes=True)
    claim = _method(Session.claim, writes=True)
    secret = _method(Session.secret, writes=True)
    read = _method(Session.read, writes=False)
    find = _method(Session.find, writes=False)
    next_due = _method(Session.next_due, writes=False)

    def jobs(self, *, is_open: bool | None = None, newest_first: bool = False) -> AsyncIterator[Stored]:
        """Yield the jobs, oldest or newest first, reading them page by page; see `Store.jobs`."""
        page = partial(Session.page, is_open=is_open, newest_first=newest_first)
        return paged(lambda last: self._opened().reader.run(page, last), LAST if newest_first else 0)

    def deliveries(self, ref: str | None = None) -> AsyncIterator[Delivery]:
        """Yield the webhooks, newest first, reading them page by page."""
        return paged(lambda before: self._opened().reader.run(Session.deliveries, before, ref=ref), LAST)

    async def purge(
        self,
        *,
        before: float,
        deliveries_kept: int,
        delivery_bytes_kept: int = MAX_DELIVERY_BYTES,
        untold_before: float = math.inf,
    ) -> int:
        """Delete old jobs in steps, so that appends can run in between; see `Store.purge`."""
        forgotten = await self._forget(await self._opened().reader.run(Session.orphans, delivery_bytes_kept))
        went = leave = MOST_LEAVING
        while went and leave == MOST_LEAVING:  # otherwise those were all, or another process purges, too
            purgeable = await self._opened().reader.run(Session.purgeable, before, deliveries_kept, untold_before)
            leave, went = len(purgeable), await self._forget(purgeable)
            forgotten += went
        return forgotten

    async def _forget(self, jobs: Sequence[Row]) -> int:
        pages = (jobs[at : at + PAGE_JOBS] for at in range(0, len(jobs), PAGE_JOBS))
        return sum([await self._opened().run(Session.forget, page) for page in pages])

    async def warnings(self) -> tuple[str, ...]:
        """Read the file, and warn of a SQLite version with a known bug; see `Store.warnings`."""
        # The query names a table so that SQLite has to read the file.
        version = "SELECT sqlite_version() FROM sqlite_master LIMIT 1"
        ((number,),) = await self._opened().reader.run(Session.rows, version)
        if not has_reset_bug(number):
            return ()
        fault = "may lose commits if processes share a file (sqlite.org/wal.html#walresetbug)"
        return (f"SQLite {number} {fault}: install a newer one by {how_to_install('sqlite')}",)

    def _make(self) -> Writer:
        try:
            path = Path(self.path).absolute()
        except OSError as error:
            raise StoreError(f"the working folder is gone: give {cut(str(self.path))} as an absolute path") from error
        return Writer(DatabaseFile(path, self.driver, self.synchronous, self.busy_timeout))
