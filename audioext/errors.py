"""Every error that audioext raises, split by whose fault it is."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import frozen

LONGEST_VALUE = 80  # characters of a value that a message repeats


def shown(value: object) -> str:
    """Return *value* as messages show it: at most 80 characters, for it may be a whole file."""
    if isinstance(value, (str, bytes, bytearray)) and len(value) > LONGEST_VALUE:
        return f"{value[:LONGEST_VALUE]!r:.{LONGEST_VALUE - 1}}…"
    try:
        return cut(repr(value))
    except Exception:  # noqa: BLE001 - a number too long for Python to write, or a value that cannot show itself
        return f"a value of type {type(value).__name__[: LONGEST_VALUE // 2]}"


def cut(text: str) -> str:
    """Return *text*, without its middle where it has over 80 characters: a path tells most at its ends."""
    if len(text) <= LONGEST_VALUE:
        return text
    head = LONGEST_VALUE // 2
    return f"{text[:head]}…{text[head + 1 - LONGEST_VALUE :]}"


def lacks_extra(need: str, extra: str) -> str:
    """Return what to do where *need* lacks the packages of an *extra*; commands write it out for their own Python."""
    return f'{need} needs more packages: pip install "audioext[{extra}]"'


_VERBS = frozenset({"cannot", "has", "holds", "is", "may", "must", "needs", "says", "works"})
"""With these begin messages that read on after the name of the field."""


@frozen
class Problem:
    """One thing that is wrong with a request, in the user's own field name.

    `advice` marks a limit that no vendor's page states: it is logged, and the request goes out.
    """

    field: str
    message: str
    advice: bool = False

    def __str__(self) -> str:
        """Return the field and what is wrong with it, on one line."""
        return f"{self.field}: {self.message}"

    @property
    def sentence(self) -> str:
        """The same for people who know no field names, such as "The title must be text, not 5."."""
        name, verb = self.field.replace("_", " "), self.message.partition(" ")[0]
        said = f"the {name} {self.message}" if verb in _VERBS else f"{name}: {self.message}"
        return printable(f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '?', '!')) else '.'}")


def printable(text: str) -> str:
    """Return *text* with a mark for each character that a terminal or a log could take for a command or a new line."""
    if text.isprintable():
        return text
    return "".join(letter if _is_seen(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"  # a blank of another width


class _Whole(Exception):  # noqa: N818 - what errors and wishes share
    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled with every fact: Python would make it anew from its text alone."""
        return _made_again, (type(self), self.args), vars(self)


def _made_again(kind: type[Exception], args: tuple[object, ...]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    return error


class AudioextError(_Whole):
    """Something went wrong in audioext; catch this to catch all of its errors."""

    def __init__(self, message: str | None = None) -> None:
        """Keep *message*, or the first paragraph of the class's docstring, which names the remedy.

        What strangers wrote may be a part of it, and reaches logs and terminals: it stays text, on this one line.
        """
        said = message if message is not None else " ".join((type(self).__doc__ or "").split())
        super().__init__(printable(said))


class ConfigError(AudioextError):
    """The client, a provider or a store was set up in a way that cannot work; nothing was sent."""


class RequestError(AudioextError):
    """The request is not valid; mend every problem listed in `problems`, nothing was sent or paid."""

    def __init__(self, problems: Iterable[Problem], *, is_submit: bool = True) -> None:
        """Keep all *problems*, and say them all; where nothing was to be sent, no word of that."""
        self.problems: tuple[Problem, ...] = tuple(problems)
        what = "this request; nothing was sent" if is_submit else "this call"
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        lines = [f"{head} with {what}:", *(f"  {problem}" for problem in self.problems)]
        super().__init__()
        self.args = ("\n".join(map(printable, lines)),)


class KeyConflictError(RequestError):
    """The key has a job already, which was for another request; `ref` is that job's."""

    def __init__(self, problems: Iterable[Problem], *, ref: str) -> None:
        """Keep the *ref* of the job that has the key."""
        self.ref = ref
        super().__init__(problems)


class UnsupportedError(AudioextError):
    """The chosen provider has no such operation; choose one of the providers that have it."""


class ProviderError(AudioextError):
    """The provider refused the call; read `code` and `message` for its reason.

    `http_status` is the HTTP status, `code` the provider's own code as text, `retryable` whether the same
    call may succeed later, and `charged` what happened to the money: `False` for certainly nothing, `True`
    for certainly paid, `None` where no page says. `ref` is the job of a submit that was refused, whose journal
    has the answer.
    """

    ref: str | None = None

    def __init__(  # noqa: PLR0913 - one keyword for each fact a caller may branch on
        self,
        message: str,
        *,
        provider: str,
        http_status: int | None = None,
        code: str | None = None,
        retryable: bool = False,
        charged: bool | None = None,
    ) -> None:
        """Keep the facts and build one sentence from them and from the class's remedy."""
        self.provider = provider
        self.http_status = http_status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.charged = charged
        label = f"{provider} answered {code}" if code is not None else provider
        # A status call costs nothing, and who refuses one says nothing of the task's money: no word of it then.
        money = {None: "", True: " (charged)", False: " (not charged)"}[charged]
        remedy = "" if type(self) is ProviderError else f". {' '.join((self.__doc__ or '').split())}"
        super().__init__(f"{label}: {message}{money}{remedy}")


class AuthError(ProviderError):
    """The API key is missing, wrong or not allowed here: check it at the provider's key page."""


class CreditsError(ProviderError):
    """The account has too few credits: top it up and submit again."""


class RateLimitError(ProviderError):
    """Too many calls: wait `retry_after` seconds where it is given, or lower the provider's `limits`."""

    def __init__(  # noqa: PLR0913 - ProviderError's keywords and one more
        self,
        message: str,
        *,
        provider: str,
        http_status: int | None = None,
        code: str | None = None,
        retryable: bool = True,
        charged: bool | None = False,
        retry_after: float | None = None,
    ) -> None:
        """Keep *retry_after*, in seconds, beside the other facts."""
        self.retry_after = retry_after
        super().__init__(
            message, provider=provider, http_status=http_status, code=code, retryable=retryable, charged=charged
        )


class ContentError(ProviderError):
    """The provider's content rules refuse the text or the audio: change it and submit again."""


class SourceError(ProviderError):
    """The provider could not fetch or read the source: is it audio? If its `url=` is not public, pass `rehost=True`."""


class ProviderDownError(ProviderError):
    """The provider cannot be reached from here, is down or under maintenance: try again later."""


class DecodeError(AudioextError):
    """What the provider sent cannot be read; `paths` says where, as `problem @ $.data.id`."""

    def __init__(self, paths: Sequence[str], *, where: str = "the body") -> None:
        """Keep the JSON *paths* of all that could not be read in *where*."""
        self.paths: tuple[str, ...] = tuple(paths)
        super().__init__(f"cannot read {where}: " + "; ".join(self.paths))


class WebhookError(AudioextError):
    """A delivery was refused; the receiver answers it with `http_status`."""

    def __init__(self, message: str, *, http_status: int) -> None:
        """Keep the HTTP status to answer with."""
        self.http_status = http_status
        super().__init__(message)


class DownloadError(AudioextError):
    """A file could not be fetched or is not playable audio; results expire, so save them soon.

    `paths` are the files that were saved all the same, `problems` says what is wrong, one line each.
    """

    def __init__(self, problems: Sequence[str], *, paths: Sequence[Path] = ()) -> None:
        """Keep what went wrong and what was saved."""
        self.problems: tuple[str, ...] = tuple(problems)
        self.paths: tuple[Path, ...] = tuple(paths)
        saved = f" (saved: {', '.join(path.name for path in self.paths)})" if self.paths else ""
        super().__init__("; ".join(self.problems) + saved)


class StoreError(AudioextError):
    """The store could not be read or written; nothing was half applied, try again when it is back."""


class UnreadableError(StoreError):
    """The store holds a job that cannot be read: it is damaged, or a later release wrote it; all others go on."""


class RetryLater(_Whole):
    """Raise it in a handler to be called again after so many *seconds*, which counts as no failure."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        """Keep how long to wait, and a *reason* for the log.

        Raises:
            ValueError: *seconds* is no finite number from 0 on.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"RetryLater needs a finite number of seconds from 0 on, not {shown(seconds)}")
        self.retry_after = float(seconds)
        super().__init__(reason or f"again in {seconds:g} s")


class GiveUp(Exception):  # noqa: N818 - as above
    """Raise it in a handler that can do nothing with this stage or failure: it is not called with it again."""


def asked_wait(error: BaseException) -> float | None:
    """Return how long (seconds) *error* asks to wait, as the "too many requests" of chat libraries does.

    They say so in an attribute `retry_after`, a number or a `timedelta`; so do `RetryLater` and `RateLimitError`.
    """
    try:
        wait: object = getattr(error, "retry_after", None)
        if isinstance(wait, timedelta):
            wait = wait.total_seconds()
        if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < math.inf:
            return None
        return float(wait)
    except Exception:  # noqa: BLE001 - the attribute is somebody else's, and may be anything
        return None
