"""What the sandbox has to know of an API: its facts, and five functions in its own words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from aiohttp import web
from attrs import field, frozen

from audioext.sandbox.models import Callback, Cause, NewIds, Refusal, Submission, Task, TaskFailure, TaskInput
from audioext.sandbox.settings import SandboxSettings


@frozen(kw_only=True)
class ApiFacts:
    """One API's codes, limits and habits."""

    provider: str
    codes: Mapping[Cause, int]
    """The code of each refusal."""
    usual_code: int
    failures: Mapping[Cause, tuple[int, str]] = field(factory=dict)
    """Tasks whose source turns out bad: code and text of the failure."""
    usual_failure: tuple[int, str]
    fails_with_code: bool = False
    """Whether a failure's text names the code, for want of a field that does."""
    key_prefix: str = "Bearer "
    limit: Literal["window", "parallel"] | None = None
    """What is limited: submits in a window of time, or open tasks."""
    fetches_first: bool = False
    """Whether the source is fetched before the submit is answered."""
    timeout_seconds: float
    """How long the reply to a webhook may take, in real seconds."""
    retry_seconds: tuple[float, ...]
    """How long to wait before each further attempt, in the API's seconds."""
    wants_exactly_200: bool = False
    """Whether another 2xx counts as failed."""
    signs: bool = False
    """Whether webhooks are signed once there is a key."""
    charges_on_success: bool = False
    """Whether a task is paid for when it succeeds, not when it is submitted."""
    is_recorded: bool = False
    """Whether there are recordings that differ from the pages."""
    refunded_codes: frozenset[int] = frozenset()
    """Failures whose price is given back."""

    def is_live(self, settings: SandboxSettings) -> bool:
        """Tell whether recordings of this API count where they differ from its pages."""
        return self.is_recorded and settings.faithful == "live"

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


class Api(Protocol):
    """How an API takes submits and tells what becomes of them."""

    @property
    def facts(self) -> ApiFacts:
        """Its codes, limits and habits."""
        ...

    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a submit's body, and note in the submission what it says.

        Raises:
            Refusal: The API would not accept it.
        """
        ...

    def new_ids(self, given: TaskInput, dice: random.Random) -> NewIds:
        """Mint the task's id, and its tracks'."""
        ...

    def accepted(self, task: Task) -> web.Response:
        """Say that the task is made."""
        ...

    def error(self, code: int, message: str, names: Sequence[str] = ()) -> web.Response:
        """Answer with this code in the API's own form; `names` are the fields to blame."""
        ...

    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the webhooks that are due now that the task has reached its stage, or has failed."""
        ...
