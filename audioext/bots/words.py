"""The texts of a progress message, and errors as sentences for the people in a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from attrs import frozen

from audioext.errors import (
    AudioextError,
    ConfigError,
    ContentError,
    ProviderDownError,
    RateLimitError,
    RequestError,
    SourceError,
    UnsupportedError,
)
from audioext.models.record import Record
from audioext.models.results import FailureReason
from audioext.runtime.jobs import Failure

_REASONS: Mapping[FailureReason, str] = {
    FailureReason.CONTENT: "The content rules of the music service refuse this text or audio.",
    FailureReason.SOURCE: "The music service could not read that audio.",
    FailureReason.TIMEOUT: "It took the music service too long.",
}
_ERRORS: Sequence[tuple[type[AudioextError], str]] = (
    (ContentError, _REASONS[FailureReason.CONTENT]),
    (SourceError, _REASONS[FailureReason.SOURCE]),
    (RateLimitError, "Too many requests right now. Please try again in a few minutes."),
    (ProviderDownError, "The music service is down. Please try again later."),
    (UnsupportedError, "The music service cannot do that."),
)


def in_words(news: AudioextError | Failure | Record) -> str:
    """Describe an error, a failure or a record's failed tracks for a chat, without keys, codes or a vendor's own text.

    A record without failed tracks is "".
    """
    if isinstance(news, Record):
        return f"{news.losses} could not be made." if news.losses else ""
    if isinstance(news, Failure):
        said = _REASONS.get(news.reason, "The music service could not make it.")
        return f"{said} It cost nothing." if news.charged is False else said
    if isinstance(news, RequestError):
        return "\n".join(problem.sentence for problem in news.problems)
    for kind, words in _ERRORS:
        if isinstance(news, kind):
            return words
    return "This bot cannot make music right now; its operator has to fix it."


@frozen(kw_only=True)
class Texts:
    """The texts of a progress message.

    {clock} is the time elapsed and expected, {links} are the tracks, {why} is the error, or how many tracks failed.
    """

    waiting: str = "Sending it off …"
    submitted: str = "In the queue, {clock}"
    text: str = "It is being made, {clock}"
    first: str = "A first listen:\n{links}\nThe rest is being made, {clock}"
    complete: str = "Here it is:\n{links}\n{why}"
    failed: str = "That did not work. {why}"
    silent: str = "Nothing has arrived for too long. If the music still comes, it will be shown here."
    again: str = "That one is being made already."

    def __attrs_post_init__(self) -> None:
        """Check now that all texts can be formatted.

        Raises:
            ConfigError: a text has another name in braces, or a single brace.
        """
        for name, text in attrs.asdict(self).items():
            try:
                text.format(clock="", links="", why="")
            except (LookupError, ValueError, AttributeError) as error:
                message = f"{name}= may hold {{clock}}, {{links}} and {{why}}, and no other braces: {text!r}"
                raise ConfigError(message) from error
