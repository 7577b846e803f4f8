"""What an answer, a status or a webhook means, in words that hold for all providers."""

from __future__ import annotations

import msgspec
from attrs import field, frozen
from attrs.converters import optional

from audioext.errors import ProviderError, printable
from audioext.models.results import FailureReason, Stage, Track


class Submitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The provider made a task.

    `track_ids` names its tracks where the answer tells them, in order; `eta` is in seconds,
    `credit_estimate` in the provider's own credits.
    """

    task_id: str
    track_ids: tuple[str, ...] = ()
    eta: float | None = None
    credit_estimate: float | None = None


@frozen(kw_only=True)
class Refused:
    """The provider certainly made no task and charged nothing; *resend* says the same POST may be sent again."""

    error: ProviderError
    resend: bool = False


@frozen(kw_only=True)
class Unknown:
    """The answer does not say whether a task was made; nothing may be resent. `reason` is for people."""

    reason: str = field(converter=printable)


@frozen(kw_only=True)
class Progress:
    """Something was seen of a task that is not its failure.

    `claimed_stage` is the stage that the wire names, `None` where it names none; `tracks` are what was
    shown, each with what is known of it. `word` keeps an unknown stage or status word. `ask_now` makes a
    status call due at once. A claim that *is_doubtful* counts when a later status call is answered with it as well.
    """

    task_id: str | None = None
    claimed_stage: Stage | None = None
    tracks: tuple[Track, ...] = ()
    cover_url: str | None = None
    credits: float | None = None
    word: str | None = field(default=None, converter=optional(printable))
    ask_now: bool = False
    is_doubtful: bool = False


@frozen(kw_only=True)
class Failed:
    """The task's own failure. `code` is the wire's text; `charged` is `None` where no page says.

    One that *is_doubtful* counts when a later status call is answered with it as well.
    """

    task_id: str | None = None
    reason: FailureReason = FailureReason.UNKNOWN
    code: str | None = field(default=None, converter=optional(printable))
    message: str = field(default="", converter=printable)
    charged: bool | None = None
    is_doubtful: bool = False


SubmitOutcome = Submitted | Refused | Unknown
Event = Submitted | Progress | Failed
