"""What a bot says: the texts of a progress message, and what went wrong in sentences for people."""

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
    (RateLimitError, "Too much is asked for at once. Please try again in a few minutes."),
    (ProviderDownError, "The music service is down. Please try again later."),
    (UnsupportedError, "The music service cannot do that."),
)


def in_words(news: AudioextError | Failure) -> str:
    """Return what went wrong in sentences for the people in a chat: no keys, no codes, no words of strangers."""
    if isinstance(news, Failure):
        said = _REASONS.get(news.reason, "The music service could not make it.")
        return f"{said} It cost nothing." if news.charged is False else said
    if isinstance(news, RequestError):
        return "\n".join(problem.sentence for problem in news.problems)
    for kind, words in _ERRORS:
        if isinstance(news, kind):
            return words
    return "This bot cannot make music right now; whoever runs it has to look."


@frozen(kw_only=True)
class Texts:
    """What a progress message says.

    {clock} is the time that has passed and that it takes, {links} are the tracks, {why} is what went wrong.
    """

    waiting: str = "Sending it off …"
    submitted: str = "In the queue, {clock}"
    text: str = "It is being made, {clock}"
    first: str = "A first listen:\n{links}\nThe rest is being made, {clock}"
    complete: str = "Here it is:\n{links}"
    failed: str = "That did not work. {why}"
    silent: str = "No word of it for too long. Should it still come, it will be here."
    again: str = "That one is being made already."

    def __attrs_post_init__(self) -> None:
        """Refuse what could not be filled in when it is too late.

        Raises:
            ConfigError: a text names something else, or has a single brace.
        """
        for name, text in attrs.asdict(self).items():
            try:
                text.format(clock="", links="", why="")
            except (LookupError, ValueError, AttributeError) as error:
                message = f"{name}= may hold {{clock}}, {{links}} and {{why}}, and no other braces: {text!r}"
                raise ConfigError(message) from error
