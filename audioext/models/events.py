"""Decoded answers, status calls and webhooks: events with the same meaning for all providers."""

from __future__ import annotations

import msgspec
from attrs import field, frozen
from attrs.converters import optional

from audioext.errors import ProviderError, printable
from audioext.models.results import FailureReason, Stage, Track


class Submitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The provider made a task.

    `track_ids` are the ids of its tracks in order, if the answer names them. `eta` is in seconds,
    `credit_estimate` in the provider's own credits.
    """

    task_id: str
    track_ids: tuple[str, ...] = ()
    eta: float | None = None
    credit_estimate: float | None = None


@frozen(kw_only=True)
class Refused:
    """The provider certainly made no task and charged nothing. If *resend* is true, the same POST may be sent again."""

    error: ProviderError
    resend: bool = False


@frozen(kw_only=True)
class Unknown:
    """The answer does not show whether a task was made, so nothing may be resent. `reason` is for people."""

    reason: str = field(converter=printable)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """News of a task other than its failure.

    `claimed_stage` is the stage that the provider named, or `None`. `tracks` are the tracks that it showed, with the
    fields that it sent. `word` keeps an unknown stage or status word. `ask_now` makes a status call due at once. A
    claim that *is_doubtful* counts only once a later status call repeats it. `reason` is why its failed tracks failed.
    """

    task_id: str | None = None
    claimed_stage: Stage | None = None
    tracks: tuple[Track, ...] = ()
    cover_url: str | None = None
    credits: float | None = None
    word: str | None = None
    ask_now: bool = False
    is_doubtful: bool = False
    reason: FailureReason = FailureReason.UNKNOWN

    @property
    def goes_on(self) -> bool:
        """Whether it reports no end of the task."""
        return self.claimed_stage is not Stage.COMPLETE and not self.is_doubtful


@frozen(kw_only=True)
class Failed:
    """The task failed. `code` is the provider's own text; `charged` is `None` if no vendor page says.

    A failure that *is_doubtful* counts only once a later status call repeats it.
    """

    task_id: str | None = None
    reason: FailureReason = FailureReason.UNKNOWN
    code: str | None = field(default=None, converter=optional(printable))
    message: str = field(default="", converter=printable)
    charged: bool | None = None
    is_doubtful: bool = False


SubmitOutcome = Submitted | Refused | Unknown
Event = Submitted | Progress | Failed
