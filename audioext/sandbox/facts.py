"""What the sandbox has to know of an API: why it says no, with which codes, and its limits and habits."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import field, frozen


class Cause(enum.Enum):
    """Why an API says no. Each API has its own code for each."""

    KEY = "key"
    CREDITS = "credits"
    RATE = "rate"
    PATH = "path"
    METHOD = "method"
    BODY = "body"
    MISSING = "missing"
    INVALID = "invalid"
    LENGTH = "length"
    MODEL = "model"
    TRACK = "track"
    TASK = "task"
    SOURCE = "source"
    FORMAT = "format"
    RANGE = "range"
    TOO_BIG = "too big"


class Refusal(Exception):  # noqa: N818 - it is an answer of the API, not an error of the sandbox
    """An API's no, before it is put into the API's own form."""

    def __init__(self, cause: Cause, message: str, *, names: Sequence[str] = ()) -> None:
        """Say why, and which fields (in the API's spelling) are to blame."""
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.names = tuple(names)


@frozen(kw_only=True)
class TaskFailure:
    """How a task failed, in its API's words, and whether its source was to blame."""

    code: int
    message: str
    by_source: bool = False


HTTP_CODES: Mapping[Cause, int] = {
    Cause.KEY: 401,
    Cause.CREDITS: 402,
    Cause.RATE: 429,
    Cause.PATH: 404,
    Cause.METHOD: 405,
    Cause.TOO_BIG: 413,
}
"""The codes of those whose pages give HTTP's own."""


@frozen(kw_only=True)
class ApiFacts:
    """One API's codes, limits and habits.

    `codes` are those of refusals, `usual_code` that of all others; `statuses` are the HTTP statuses that codes bear
    where the usual one is 200. `failures` are code and text of tasks whose source turns out bad; `fails_with_code`
    says that a failure's text names the code, for want of a field that does, and `refunded_codes` are those of
    failures whose price is given back. `limit` tells whether submits are limited in a window of time, or open
    tasks. `fetches_first` says that the source is fetched before the submit is answered. A webhook's reply may take
    `timeout_seconds` (real ones); each further attempt comes after `retry_seconds` (the API's). `wants_exactly_200`
    says that another 2xx counts as failed, `signs` that webhooks are signed once there is a key,
    `charges_on_success` that a task is paid for when it succeeds, and `is_recorded` that there are recordings which
    differ from the pages.
    """

    provider: str
    codes: Mapping[Cause, int]
    usual_code: int
    statuses: Mapping[int, int] = field(factory=dict)
    failures: Mapping[Cause, tuple[int, str]] = field(factory=dict)
    usual_failure: tuple[int, str]
    fails_with_code: bool = False
    refunded_codes: frozenset[int] = frozenset()
    key_prefix: str = "Bearer "
    limit: Literal["window", "parallel"] | None = None
    fetches_first: bool = False
    timeout_seconds: float
    retry_seconds: tuple[float, ...]
    wants_exactly_200: bool = False
    signs: bool = False
    charges_on_success: bool = False
    is_recorded: bool = False

    def code(self, cause: Cause) -> int:
        """Return the code of a refusal."""
        return self.codes.get(cause, self.usual_code)

    def failure_by(self, refusal: Refusal) -> TaskFailure:
        """Fail a task whose source turned out bad."""
        code, message = self.failures.get(refusal.cause, self.usual_failure)
        return TaskFailure(code=code, message=message, by_source=True)

    def failure_with(self, code: int | None) -> TaskFailure:
        """Fail a task because a fault says so, with this code or the usual one."""
        usual, message = self.usual_failure
        if code is not None and self.fails_with_code:
            message = f"{message} ({code})"
        return TaskFailure(code=usual if code is None else code, message=message)
