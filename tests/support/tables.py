"""Tables of cases for tests of pure functions: all rows are one test, and a failure names its row."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence

Test = Callable[..., None]


def each_row(names: str | Sequence[str], rows: Iterable[object]) -> Callable[[Test], Test]:
    """Return a decorator like `pytest.mark.parametrize` that runs all *rows* in one test.

    For tests that neither change a fixture nor wait: it saves the set-up of one test per row.
    """
    words = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    table = [tuple(row) if len(words) > 1 else (row,) for row in rows]  # type: ignore[arg-type]  # as parametrize

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(**fixtures: object) -> None:
            for row in table:
                given = dict(zip(words, row, strict=True))
                try:
                    test(**fixtures, **given)
                except BaseException as error:
                    error.add_note(f"row: {given!r}")
                    raise

        signature = inspect.signature(test)
        asked = [parameter for name, parameter in signature.parameters.items() if name not in words]
        run.__signature__ = signature.replace(parameters=asked)  # type: ignore[attr-defined]  # pytest reads fixtures here
        return run

    return decorate
