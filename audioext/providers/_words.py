"""The vendors' words: the meaning of status words in any spelling, and the keys of messages for people.

docs.kie.ai/suno-api/get-music-details and extend-music-callbacks, docs.sunoapi.org/suno-api/extend-music-callbacks,
docs.kie.ai/common-api/webhook-verification (TASK_COMPLETED), docs.kie.ai/market/common/get-task-detail,
docs.vidgo.ai/api-manual/task-management/status and docs.musicgpt.com/api-documentation/endpoint/getById, read
2026-11-21. COMPLETED, SUCCESSFUL, SUCCEEDED, FAILED, ERROR and the like: public clients, which handle them.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from audioext.http.decoding import opened, plain_keys
from audioext.models.results import Stage

CALLBACK_EXCEPTION = "CALLBACK_EXCEPTION"
"""The vendor's callback to us failed: a fault of our endpoint, not of the music."""
CONTENT_WORDS = re.compile(
    r"\b(copyright\w*|moderat\w+|sensitive|prohibited|inappropriate|artist name|existing work|flagged"
    r"|content (policy|violations?)|(community|content|safety|usage) guidelines|nsfw|profan\w+"
    r"|violat(es?|ed|ing) (our|the) [\w ]{0,40}(policy|policies|guidelines|rules|standards))\b",
    re.IGNORECASE,
)
"""Words of content refusals: seen at kie.ai (2026-02 to 08) and at a sibling of vidgo.

"Content policy" is kie.ai's own term for 400 (docs.kie.ai/suno-api/quickstart), "content violation" sunoapi.org's
(docs.sunoapi.org/suno-api/add-instrumental-callbacks), both read 2026-11-21; the others from "violates" on are guesses.
An "existing work" comes with 413: docs.kie.ai/suno-api/upload-and-extend-audio-callbacks, read 2026-11-21.
"""

CREDIT_WORDS = re.compile(
    r"(insufficient|n.t (have )?enough|too few|(run|ran|are) out of|lack of)( [a-z]+)? (credits?|balance)\b"
    r"|\b(credits?|balance) (is |are )?(insufficient|not enough|too low|exhausted)\b"
    r"|\bno (more |remaining )?credits? (left|remaining|available)\b",
    re.IGNORECASE,
)
"""Words of refusals for lack of credits, under any code; "no credits were charged" does not match.

"Insufficient credits" under 429: third-party tests of sunoapi.org; the other phrases are guesses.
"""

RATE_WORDS = re.compile(
    r"\b(rate[- ]?limit|call frequency|too (many (\w+ )?(requests|calls|jobs|tasks)|frequent)|concurren)", re.IGNORECASE
)
"""Words of rate limits: docs.sunoapi.org/suno-api/generate-music, read 2026-11-21, and guesses."""
AUTH_WORDS = re.compile(
    r"\b(unauthori[sz]ed|not authenticated|access permissions?"
    r"|(invalid|wrong|incorrect|missing|expired) (api[- ]?key|access token|token))\b",
    re.IGNORECASE,
)
"""Words of refused keys: "access permissions" is kie.ai's (docs.kie.ai/1973359m0, read 2026-11-21), others guessed."""

# --- status words ----------------------------------------------------------------------------------------------------

_LONGEST_WORD = 100  # characters; longer words are not parsed, real ones have up to 21
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STEPS = {"TEXT": Stage.TEXT, "FIRST": Stage.FIRST}
_KINDS = {
    part: kind
    for kind, parts in {
        "done": (
            "COMPLETE COMPLETED SUCCESS SUCCEED SUCCEEDED SUCCESSFUL SUCCESSFULLY FINISH FINISHED DONE READY GENERATED "
            "OK AVAILABLE FULFILLED FINALIZED DELIVERED RENDERED RESOLVED PASSED"
        ),
        "filling": (
            "TASK JOB ALL AUDIO AUDIOS MUSIC SONG SONGS TRACK TRACKS GENERATE GENERATION WITH WITHOUT ERROR ERRORS "
            "WARNING WARNINGS"
        ),
        "running": (
            "PENDING WAITING QUEUE QUEUED QUEUING QUEUEING ENQUEUED SCHEDULED INIT INITIALIZING CREATED CREATING NEW "
            "SUBMITTED ACCEPTED RECEIVED STARTING STARTED PREPARING UPLOADING UPLOADED DOWNLOADING LOADING VALIDATING "
            "ANALYZING GENERATING RENDERING MIXING PROCESSING STREAMING RUNNING PROGRESS INPROGRESS ONGOING ACTIVE "
            "WORKING RETRY RETRYING"
        ),
        "given up": (
            "CANCEL CANCELED CANCELLED ABORT ABORTED ABORTING REJECT REJECTED REFUSED DENIED DECLINED BLOCKED "
            "MODERATED SENSITIVE VIOLATION NSFW INVALID EXCEPTION ERR FAULT FAULTED CRASHED BROKEN DEAD EXPIRED "
            "TIMEOUT TIMEDOUT OUT UNSUCCESS UNSUCCESSFUL TERMINATED KILLED STOPPED INTERRUPTED REVOKED REFUNDED "
            "REMOVED DELETED DISCARDED INSUFFICIENT FATAL"
        ),
        "about us": "CALLBACK WEBHOOK",
    }.items()
    for part in parts.split()
}
"""The kind of each known part of a status word."""


@frozen
class StatusWord:
    """A status word: `raw` as it came, `name` in upper case with underscores between its parts.

    A known word has a `stage`, or is a failure (`fails`), or means that the task still runs (`runs`), or that the
    callback to us failed (`is_callback_failure`).
    """

    raw: str = ""
    name: str = ""
    stage: Stage | None = None
    fails: bool = False
    runs: bool = False
    is_callback_failure: bool = False

    @property
    def unknown(self) -> str | None:
        """The raw word if its meaning is unknown, else `None`."""
        is_known = self.stage or self.fails or self.runs or self.is_callback_failure
        return self.raw if self.name and not is_known else None


def status_word(raw: str) -> StatusWord:
    """Return the meaning of *raw*, whatever its case and separators."""
    return _status_word(raw) if len(raw) <= _LONGEST_WORD else StatusWord(raw, raw[:_LONGEST_WORD].upper())


@functools.lru_cache(maxsize=1024)
def _status_word(raw: str) -> StatusWord:
    parts = [part.upper() for part in _PARTS.findall(raw)]
    kinds = {part: _KINDS.get(part, "") for part in parts}
    name, kind = "_".join(parts) or raw.strip().upper(), set(kinds.values())
    rest = "_".join(part for part in kinds if kinds[part] not in {"done", "filling"})
    stage = _STEPS.get(rest) if rest else Stage.COMPLETE if "done" in kind else None
    # Vendors invent new words with FAIL or ERROR in them.
    fails = stage is None and ("FAIL" in name or "ERROR" in name or "given up" in kind)
    is_callback_failure = fails and "about us" in kind
    return StatusWord(
        raw,
        CALLBACK_EXCEPTION if is_callback_failure else name,
        stage,
        fails=fails and not is_callback_failure,
        runs=stage is None and not fails and "running" in kind,
        is_callback_failure=is_callback_failure,
    )


# --- texts for people ------------------------------------------------------------------------------------------------

_SAYING = re.compile(
    r"(status|result|task|fail|failed|failure|err|error|exception|reject|rejected|rejection|block|blocked|refusal)?"
    r"(details?|desc|description|text|cause|info)"
    r"|[a-z]*(msg|message|reason)|errs?|errors?|exceptions?|failures?|remark|note|comment|explanation|warnings?|tips?"
)
"""`plain` keys of error messages for people; vendors and their clients know some two dozen."""
_FIRST = ("message", "msg", "detail", "error", "reason")
_PLEASANTRIES = frozenset({"", "success", "ok", "all generated successfully", "null", "none", "undefined", "no error"})
_PHRASES = frozenset({"bad request", "unauthorized", "forbidden", "not found", "unprocessable", "unprocessable entity"})
_MOST_TEXTS = 20  # texts read per object or list; vendors' objects have up to 20 keys in all
LONGEST_MESSAGE = 500  # characters; a vendor's text is shown in logs and to users
_LONGEST_TEXT = 2_000  # characters read of one text
_DEEPEST = 6


def words(value: object, depth: int = 0) -> str:
    """Return the text in *value* or nested in it; a framework's `{"loc": …, "msg": …}` becomes `field: message`."""
    value = opened(value)
    if isinstance(value, str):
        return value[:_LONGEST_TEXT].strip()
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (words(item, depth + 1) for item in value[:_MOST_TEXTS])))
    if not isinstance(value, dict):
        return ""
    keys = plain_keys(value)
    others = [item for name, item in keys.items() if not _names_words(name)][:_MOST_TEXTS]  # `all_said` reads the rest
    inner = (words(item, depth + 1) for item in others)
    text = told(all_said(keys, _FIRST, depth + 1)) or next((each for each in inner if " " in each), "")
    field_path = value.get("loc")
    steps = [str(step) for step in field_path if isinstance(step, (str, int))] if isinstance(field_path, list) else []
    named = ".".join(step for step in steps if step != "body")
    return f"{named}: {text}" if named and text else text


def told(texts: Iterable[str]) -> str:
    """Return *texts* as one, since the first may only say "failed"; HTTP's phrase for a status is the last choice."""
    found = dict.fromkeys(texts)
    joined = ""
    for text in [text for text in found if text.lower() not in _PHRASES] or found:
        if text not in joined:  # an object's text is also a part of the text of the object around it
            joined = f"{joined} {text}".lstrip()
    return joined


def all_said(keys: Mapping[str, object], first: Iterable[str] = (), depth: int = 0) -> Iterator[str]:
    """Yield every text of *keys* that is not a pleasantry, those under the keys *first* before the others."""
    names = dict.fromkeys((*first, *itertools.islice(filter(_names_words, keys), _MOST_TEXTS)))  # without duplicates
    texts = (words(keys.get(name), depth) for name in names)
    return (text for text in texts if text.lower().rstrip(".! ") not in _PLEASANTRIES)


def _names_words(key: str) -> bool:
    return len(key) <= _LONGEST_WORD and _SAYING.fullmatch(key) is not None


def says_no(value: object) -> bool:
    """Say whether *value*, of a key such as `success` or `ok`, means no."""
    return value is False or (isinstance(value, (str, int)) and str(value).strip().lower() in {"false", "0", "no"})
