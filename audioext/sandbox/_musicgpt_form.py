"""Reads MusicGPT's extend form.

https://docs.musicgpt.com/api-documentation/conversions/extend (sheet 2.2, seed 004).
"""

import math
from collections.abc import Mapping

from aiohttp import web

from ._bodies import read_json_object
from ._fields import is_address
from ._forms import Form, read_form
from .studio import Studio
from .tasks import Kind, Order, Refusal, Submission, Trouble

__all__ = ["read_order"]

#: The parameter table: lyrics 2000, lyrics_section_to_extend 3000. The prompt's limit is on no page.
LENGTHS = {"lyrics": 2000, "lyrics_section_to_extend": 3000}
GENDERS = ("male", "female", "neutral")
OUTPUTS = ("1", "2")
FLAGS = ("generate_album_cover", "lyrics_timestamps")
FLAG_WORDS = ("true", "false")
KNOWN = frozenset(
    {
        "audio_url",
        "extend_after",
        "prompt",
        "gender",
        "num_outputs",
        "webhook_url",
        "title",
        *LENGTHS,
        *FLAGS,
    },
)


async def read_order(request: web.Request, studio: Studio, submission: Submission) -> Order:
    """Read the form and check it.

    Raises:
        Refusal: Something is missing or wrong.
    """
    form = await _read(request, studio)
    texts = form.texts
    shown: dict[str, object] = dict(texts)
    if form.file is not None:
        shown["audio_file"] = {"filename": form.file.name, "size": form.file.size}
    submission.fields = shown
    submission.ignored = tuple(name for name in texts if name not in KNOWN)
    submission.callback_url = texts.get("webhook_url")
    _check(form)
    return Order(
        operation="extend",
        kind=Kind.EXTENSION,
        fields=shown,
        url=texts.get("audio_url") if form.file is None else None,
        file_key=form.file.key if form.file is not None else None,
        continue_at=float(texts["extend_after"]),
        title=texts.get("title", ""),
        prompt=texts.get("prompt", ""),
        outputs=int(texts.get("num_outputs", "2")),
        callback_url=texts.get("webhook_url"),
    )


async def _read(request: web.Request, studio: Studio) -> Form:
    """Read multipart; also the plain form of the docs' own sample, and the JSON of the vendor's n8n node."""
    if request.content_type == "application/x-www-form-urlencoded":
        posted = await request.post()
        return Form({name: value for name, value in posted.items() if isinstance(value, str)}, None)
    if request.content_type == "application/json":
        body = await read_json_object(request)
        return Form({name: _as_text(value) for name, value in body.items() if value is not None}, None)
    return await read_form(request, studio, file_names=("audio_file",), provider="musicgpt")


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(form: Form) -> None:
    texts = form.texts
    missing = [] if "extend_after" in texts else ["extend_after"]
    if form.file is None and not texts.get("audio_url"):
        missing += ["audio_file", "audio_url"]
    if missing:
        raise Refusal(Trouble.MISSING, "Field required", names=missing)
    wrong = [name for name, fits in _judgements(texts).items() if not fits]
    if wrong:
        raise Refusal(Trouble.INVALID, f"Invalid value for {', '.join(wrong)}", names=wrong)


def _judgements(texts: Mapping[str, str]) -> Mapping[str, bool]:
    """Judge each field that is there."""
    judged = {name: len(texts[name]) <= limit for name, limit in LENGTHS.items() if name in texts}
    judged |= {name: texts[name] in FLAG_WORDS for name in FLAGS if name in texts}
    if "gender" in texts:
        judged["gender"] = texts["gender"] in GENDERS
    if "num_outputs" in texts:
        judged["num_outputs"] = texts["num_outputs"] in OUTPUTS
    if "webhook_url" in texts:
        judged["webhook_url"] = is_address(texts["webhook_url"])
    judged["extend_after"] = _is_time(texts["extend_after"])
    return judged


def _is_time(text: str) -> bool:
    try:
        seconds = float(text)
    except ValueError:
        return False
    return math.isfinite(seconds) and seconds >= 0
