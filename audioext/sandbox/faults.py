"""The faults that a test may request, and their text form."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from typing import Self

from attrs import field, frozen
from attrs.converters import optional

_STAGE = "text|first|complete"
_PART = f"{_STAGE}|error|audio|lyrics|cover"
"""MusicGPT's webhooks have no stage; they can also be named by what they carry."""
_FORM = re.compile(
    r"(?P<kind>[a-z_]+)(?:=(?P<argument>[^%*@]*))?(?:%(?P<chance>\d+))?(?:\*(?P<times>\d+))?(?:@(?P<title>.+))?",
    re.ASCII,
)
WHOLE_PERCENT = 100


class FaultError(ValueError):
    """The sandbox knows no such fault: see `audioext.sandbox.Fault` for the words."""


class FaultKind(enum.StrEnum):
    """What can go wrong between an API and its client."""

    DUPLICATE = "duplicate"
    DROP = "drop"
    DELAY = "delay"
    REORDER = "reorder"
    CALLBACK_BEFORE_RESPONSE = "callback_before_response"
    LOSE_RESPONSE = "lose_response"
    BAD_SIGNATURE = "bad_signature"
    ERROR = "error"
    HTTP = "http"
    CODE = "code"
    EMPTY_AUDIO = "empty_audio"
    SAME_AUDIO = "same_audio"
    CALLBACK_EXCEPTION = "callback_exception"
    EXPIRE_LINKS = "expire_links"


@frozen(kw_only=True)
class Fault:
    """One fault, and which tasks it affects.

    As text: ``NAME[=ARGUMENT][%CHANCE][*TIMES][@TITLE]``. *CHANCE* is a whole number of percent, *TIMES*
    bounds how many tasks it affects (``*1`` is the next task only), *TITLE* is a shell-style pattern for the
    task's title (or for its prompt, if it has no title).

    ============================  =======================================================================
    ``duplicate``                 each webhook is sent twice
    ``drop[=STAGE]``              the webhooks of this stage (of all stages) are never sent
    ``delay=STAGE:SECONDS``       this webhook is delayed by so many API seconds (divided by the speed)
    ``reorder``                   the webhooks are sent at the end, the last one first
    ``callback_before_response``  all webhooks are answered before the submit is
    ``lose_response[=VARIANT]``   the connection is cut without an answer; ``half``: in the middle of it;
                                  ``unmade``: and no task was made
    ``bad_signature``             the webhooks' signatures are wrong (kie.ai)
    ``error[=STAGE[:CODE]]``      the task fails at this stage (complete) with the API's error callback
    ``http=STATUS[:made]``        the submit gets this HTTP status and a page; ``made``: but the task exists
    ``code=CODE``                 the submit gets this code in the API's envelope, and no task is made
    ``empty_audio``               the files have no bytes
    ``same_audio``                all tracks are the same recording
    ``callback_exception[=WITH]`` the final webhook counts as undeliverable; the status call then answers
                                  ``with`` the results (default) or ``without``
    ``expire_links[=SECONDS]``    the links to the files expire (410) so many API seconds (0) after the task
                                  is complete; those of a recovery do not
    ============================  =======================================================================

    STAGE is text, first or complete; for ``drop`` and ``delay`` also error, audio, lyrics or cover.
    """

    kind: FaultKind = field(converter=FaultKind)
    stage: str | None = None
    seconds: float = field(default=0.0, converter=float)
    code: int | None = field(default=None, converter=optional(int))
    variant: str | None = None
    chance: int = field(default=WHOLE_PERCENT, converter=int)
    times: int | None = field(default=None, converter=optional(int))
    title: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one fault from its text.

        Raises:
            FaultError: The text is not a fault.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None or match["kind"] not in set(FaultKind):
            raise FaultError(f"{text!r} is not a fault; the faults are {', '.join(FaultKind)}")
        form, pattern = _ARGUMENTS.get(FaultKind(match["kind"]), ("", ""))
        argument = re.fullmatch(pattern, match["argument"] or "", re.ASCII)
        if argument is None or match["argument"] == "":
            raise FaultError(f"{text!r} is not a fault; write {match['kind']}{form}")
        words = {**match.groupdict(), **argument.groupdict(), "argument": None}
        return cls(**{name: word for name, word in words.items() if word is not None})

    def __str__(self) -> str:
        """Write the fault in the form that `parse` reads."""
        is_timed = self.kind is FaultKind.DELAY or self.seconds
        details = (self.stage, f"{self.seconds:g}" if is_timed else None, self.code, self.variant)
        argument = ":".join(str(detail) for detail in details if detail is not None)
        chance = None if self.chance == WHOLE_PERCENT else self.chance
        marked = (("=", argument or None), ("%", chance), ("*", self.times), ("@", self.title))
        return self.kind.value + "".join(f"{mark}{value}" for mark, value in marked if value is not None)


_ARGUMENTS: Mapping[FaultKind, tuple[str, str]] = {
    FaultKind.DROP: (f"[={_PART}]", f"(?P<stage>{_PART})?"),
    FaultKind.DELAY: (f"={_PART}:SECONDS", rf"(?P<stage>{_PART}):(?P<seconds>\d+(?:\.\d+)?)"),
    FaultKind.ERROR: (f"[={_STAGE}[:CODE]]", rf"(?:(?P<stage>{_STAGE})(?::(?P<code>\d+))?)?"),
    FaultKind.HTTP: ("=STATUS[:made]", r"(?P<code>\d+)(?::(?P<variant>made))?"),
    FaultKind.CODE: ("=CODE", r"(?P<code>\d+)"),
    FaultKind.LOSE_RESPONSE: ("[=half|unmade]", "(?P<variant>half|unmade)?"),
    FaultKind.EXPIRE_LINKS: ("[=SECONDS]", r"(?P<seconds>\d+(?:\.\d+)?)?"),
    FaultKind.CALLBACK_EXCEPTION: ("[=with|without]", "(?P<variant>with|without)?"),
}
"""The argument of a fault, for people and as a pattern; the other faults have none."""


@frozen
class Plan:
    """The faults of one task."""

    faults: tuple[Fault, ...] = ()

    def get(self, kind: FaultKind, words: Collection[str] = ()) -> Fault | None:
        """Return the task's first fault of this kind, or None; a fault with a stage counts only if *words* name it."""
        found = (fault for fault in self.faults if fault.kind is kind)
        return next((fault for fault in found if not words or fault.stage is None or fault.stage in words), None)
