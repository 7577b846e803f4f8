"""Every error that audioext raises, split by whose fault it is."""

from __future__ import annotations

import math
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import frozen

LONGEST_VALUE = 80  # characters of a value that a message quotes


def shown(value: object) -> str:
    """Return the repr of *value* for a message, cut to 80 characters, since it may be a whole file."""
    if isinstance(value, (str, bytes, bytearray)) and len(value) > LONGEST_VALUE:
        return f"{value[:LONGEST_VALUE]!r:.{LONGEST_VALUE - 1}}…"
    try:
        return cut(repr(value))
    except Exception:  # noqa: BLE001 - an int too long for Python to convert, or a value whose repr raises
        return f"a value of type {type(value).__name__[: LONGEST_VALUE // 2]}"


def cut(text: str, most: int = LONGEST_VALUE) -> str:
    """Return *text*, cut in the middle to *most* characters: the ends of a path tell most."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def lacks_extra(need: str, extra: str) -> str:
    """Return the message that *need* needs *extra*, and how to install it."""
    return f"{need} needs more packages: {how_to_install(extra)}"


def how_to_install(extra: str) -> str:
    """Return the command that installs *extra* for the running Python, and the one for a clone."""
    pip = f"{shlex.quote(sys.executable or 'python')} -m pip install"
    return f'{pip} "audioext[{extra}]", or in a clone: {pip} ".[{extra}]"'


_BOUND = re.compile(
    r"error while attempting to bind on address \([^)]*\): (\[errno \d+\] )?| \(while attempting to bind [^)]*\)\)"
)


def why_unbound(error: OSError | ValueError) -> str:
    """Return the system's message for a failed bind, without the address and the errno that asyncio and Python add."""
    # A ValueError: it cannot be a host's name. asyncio since Python 3.13 skips addresses that are not there.
    if isinstance(error, ValueError) or error.errno is None:
        return "this machine has no such address"
    return _BOUND.sub("", error.strerror or str(error))


_VERBS = frozenset({"cannot", "has", "holds", "is", "may", "must", "needs", "says", "works"})
"""First words of messages that continue a sentence whose subject is the field."""
_SPOKEN = {"continue_at": "point to continue at"}  # fields whose name is no noun


@frozen
class Problem:
    """One problem of a request; `field` is the name that the user passed.

    `advice` marks a limit that no vendor's page states: it is only logged, and the request is sent.
    """

    field: str
    message: str
    advice: bool = False

    def __str__(self) -> str:
        """Return `field: message`."""
        return f"{self.field}: {self.message}"

    @property
    def sentence(self) -> str:
        """The problem as a sentence for end users, such as "The title must be text, not 5."."""
        name, verb = _SPOKEN.get(self.field, self.field.replace("_", " ")), self.message.partition(" ")[0]
        said = f"the {name} {self.message}" if verb in _VERBS else f"{name}: {self.message}"
        return printable(f"{said[:1].upper()}{said[1:]}{'' if said.endswith(('.', '?', '!')) else '.'}")


def printable(text: str) -> str:
    """Return *text* with U+FFFD for each character that could control a terminal or break a log line."""
    if text.isprintable():
        return text
    return "".join(letter if _is_seen(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"  # a space, such as a no-break one


class _Copyable(Exception):  # noqa: N818 - the base of errors, and of requests like `RetryLater`
    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle all attributes: by default Python would call `__init__` with the message alone."""
        return _rebuilt, (type(self), self.args), vars(self)


def _rebuilt(kind: type[Exception], args: tuple[object, ...]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    return error


class AudioextError(_Copyable):
    """Something went wrong in audioext; this is the base class of all its errors."""

    def __init__(self, message: str | None = None) -> None:
        """Keep *message*, by default the class's docstring, which names the remedy.

        A message may quote strangers and reach logs and terminals, so it is made `printable` on one line.
        """
        said = message if message is not None else " ".join((type(self).__doc__ or "").split())
        super().__init__(printable(said))


class ConfigError(AudioextError):
    """The settings of the client, a provider or a store cannot work; nothing was sent."""


class RequestError(AudioextError):
    """The request is invalid: fix every problem in `problems`; nothing was sent or paid."""

    def __init__(self, problems: Iterable[Problem], *, is_submit: bool = True) -> None:
        """Keep all *problems* and list them in the message; without *is_submit* it does not mention sending."""
        self.problems: tuple[Problem, ...] = tuple(problems)
        what = "this request; nothing was sent" if is_submit else "this call"
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        lines = [f"{head} with {what}:", *(f"  {problem}" for problem in self.problems)]
        super().__init__()
        self.args = ("\n".join(map(printable, lines)),)


class KeyConflictError(RequestError):
    """The key already belongs to a job with another request; `ref` is that job's, empty while it is being submitted."""

    def __init__(self, problems: Iterable[Problem], *, ref: str) -> None:
        """Keep the *ref* of the job that has the key."""
        self.ref = ref
        super().__init__(problems)


class UnsupportedError(AudioextError):
    """The chosen provider has no such operation; choose a provider that has it."""


class ProviderError(AudioextError):
    """The provider refused the call; read `code` and `message` for its reason.

    `http_status` is the HTTP status, `code` the provider's own code as text, and `retryable` whether the same call
    may succeed later. `charged` is `False` if it certainly cost nothing, `True` if it was certainly paid, `None` if no
    page says. `ref` is the job of a refused submit; its journal has the answer.
    """

    ref: str | None = None

    def __init__(  # noqa: PLR0913 - one keyword for each fact that a caller may branch on
        self,
        message: str,
        *,
        provider: str,
        http_status: int | None = None,
        code: str | None = None,
        retryable: bool = False,
        charged: bool | None = None,
    ) -> None:
        """Keep the facts, and build the message from them and the class's docstring, which names the remedy."""
        self.provider = provider
        self.http_status = http_status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.charged = charged
        label = f"{provider} answered {code}" if code is not None else provider
        # None for a refused status call: it costs nothing, and says nothing about what the task cost.
        money = {None: "", True: " (charged)", False: " (not charged)"}[charged]
        remedy = "" if type(self) is ProviderError else f". {' '.join((self.__doc__ or '').split())}"
        super().__init__(f"{label}: {message}{money}{remedy}")


class AuthError(ProviderError):
    """The API key is missing, wrong or not allowed here: check it at the provider's key page."""


class CreditsError(ProviderError):
    """The account has too few credits: top it up and submit again."""


class RateLimitError(ProviderError):
    """Too many calls: wait `retry_after` seconds if it is set, or fit the provider's `limits` to your account."""

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
        """Keep *retry_after* (seconds) and the other facts."""
        self.retry_after = retry_after
        super().__init__(
            message, provider=provider, http_status=http_status, code=code, retryable=retryable, charged=charged
        )


class ContentError(ProviderError):
    """The provider's content rules refuse the text or the audio: change it and submit again."""


class SourceError(ProviderError):
    """The provider could not fetch or read the source: is it audio?

    If its URL is not public, give the file itself, or pass `rehost=True` (kie, kie-jobs and sunoapi).
    """


class ProviderDownError(ProviderError):
    """The provider cannot be reached from here, is down or under maintenance: try again later."""


class DecodeError(AudioextError):
    """The provider's data cannot be read; `paths` says where, as `problem @ $.data.id`."""

    def __init__(self, paths: Sequence[str], *, where: str = "the body") -> None:
        """Keep the *paths*, one for each problem in *where*."""
        self.paths: tuple[str, ...] = tuple(paths)
        super().__init__(f"cannot read {where}: " + "; ".join(self.paths))


class WebhookError(AudioextError):
    """A webhook was refused; the receiver answers it with `http_status`."""

    def __init__(self, message: str, *, http_status: int) -> None:
        """Keep the HTTP status to answer with."""
        self.http_status = http_status
        super().__init__(message)


class DownloadError(AudioextError):
    """A file could not be fetched or is not playable audio; results expire, so save them soon.

    `paths` are the files that were saved nevertheless; `problems` has one line for each failure.
    """

    def __init__(self, problems: Sequence[str], *, paths: Sequence[Path] = ()) -> None:
        """Keep what went wrong and what was saved."""
        self.problems: tuple[str, ...] = tuple(problems)
        self.paths: tuple[Path, ...] = tuple(paths)
        saved = f" (saved: {', '.join(path.name for path in self.paths)})" if self.paths else ""
        super().__init__("; ".join(self.problems) + saved)


class StoreError(AudioextError):
    """The store could not be read or written: no change was half applied; try again when it is back."""


class UnreadableError(StoreError):
    """A job in the store cannot be read: it is damaged, or a later release wrote it; other jobs go on."""


class RetryLater(_Copyable):
    """Raise it in a handler to be called again after *seconds*; it does not count as a failure."""

    def __init__(self, seconds: float | timedelta, reason: str = "") -> None:
        """Keep the wait in *seconds*, which may be a `timedelta`, and a *reason* for the log.

        Raises:
            ValueError: *seconds* is negative, not finite, or no number.
        """
        wait = _wait(seconds)
        if wait is None:
            raise ValueError(f"RetryLater needs a finite number of seconds, at least 0, not {shown(seconds)}")
        self.retry_after = wait
        super().__init__(reason or f"again in {wait:g} s")


class GiveUp(Exception):  # noqa: N818 - as above
    """Raise it in a handler to stop its retries: it is not called again for this stage or failure."""


def asked_wait(error: BaseException) -> float | None:
    """Return the seconds that *error* asks to wait in its `retry_after`, or `None`.

    `RetryLater`, `RateLimitError` and the rate-limit errors of chat libraries have it: a number or a `timedelta`.
    """
    try:
        return _wait(getattr(error, "retry_after", None))
    except Exception:  # noqa: BLE001 - another library's attribute, which may be anything
        return None


def _wait(value: object) -> float | None:
    """Return *value* in seconds, `None` unless it is a time from 0 on."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        return None
    return float(seconds)
