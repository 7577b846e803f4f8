"""MusicGPT: https://docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21.

A multipart form with or without a file, a raw key, numbered keys in status answers, and up to five partial
webhooks in any order. It extends audio from a URL or a file, and has no call for anything else of ours.
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from attrs import frozen
from yarl import URL

from audioext.errors import DecodeError
from audioext.http.messages import HttpRequest, HttpResponse, Part
from audioext.models.events import Event
from audioext.models.limits import Limits
from audioext.models.record import Record
from audioext.models.requests import Operation, Request
from audioext.providers._account import DAY_SECONDS, HostedAccount, Vendor, file_part
from audioext.providers._answers import HTTP_CODES, OK, CodeTable
from audioext.providers._fields import FieldRules, wire_names, wire_values
from audioext.providers._parts import conversion_events, part_events
from audioext.providers.base import FileRoute

EXTEND_PATH = "/extend"

# Unfinished jobs at one time: Free 1, Plus 5, Pro 10: docs.musicgpt.com/api-documentation/utilities/ratelimits,
# read 2026-11-21
FREE_PLAN_PARALLEL = 1

FORM_NAMES = wire_names(url="audio_url", continue_at="extend_after", vocal_gender="gender")

RULES = FieldRules(
    wire_name="musicgpt",
    upload_needs_continue_at=True,
    # docs.musicgpt.com/api-documentation/conversions/extend, read 2026-11-21; 280 for the prompt: the vendor's n8n node
    # and a live client, but no page.
    lengths={Operation.UPLOAD_EXTEND: {"lyrics": 2000, "lyrics_section_to_extend": 3000, "prompt": 280}},
    stated_lengths=frozenset({"lyrics", "lyrics_section_to_extend"}),
)


@frozen
class MusicGpt(HostedAccount):
    """MusicGPT's extend call; tracks are continued by their audio URL.

    `limits` is that of the free plan, one unfinished job at a time: set `Limits(parallel=5)` on Plus and
    `Limits(parallel=10)` on Pro.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor] = Vendor(
        rules=RULES,
        key_variable="MUSICGPT_API_KEY",
        base_url=URL("https://api.musicgpt.com/api/public/v1"),
        file_route=FileRoute.INLINE,
        # HTTP's meanings: docs.musicgpt.com/api-documentation/utilities/error, read 2026-11-21; 401 is not on it, but
        # both of the vendor's packages map it. A 422's body is on no page: `detail` as the vendor's web framework does.
        table=CodeTable(
            http_refusals=frozenset(HTTP_CODES),
            text_keys=("detail", "message", "error", "msg", "reason", "statusmsg"),
        ),
        status_path="/byId",
        # "not both" ids, and both tracks come whichever is given: endpoint/getById, read 2026-11-21
        status_query={"conversionType": "EXTEND"},
        auth="",  # the raw key: docs.musicgpt.com/api-documentation/index/authentication, read 2026-11-21
        limits=Limits(parallel=FREE_PLAN_PARALLEL),
        extends_by_id=False,
        counts_tracks=True,
        retention=90 * DAY_SECONDS,  # MP3 files; WAV 7 days: docs.musicgpt.com/…/index/changelog, read 2026-11-21
    )

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; `webhook_url` is optional, and a file goes inside."""
        values = wire_values(request, {}, names=FORM_NAMES, rules=RULES)
        parts = [Part(name=name, value=_form_text(value)) for name, value in values.items()]
        if callback is not None:
            parts.append(Part(name="webhook_url", value=str(callback)))
        if request.path is not None:
            # Last, so that a server that reads the stream has the texts by then.
            parts.append(file_part("audio_file", request.path, filename=request.path.name))
        return self.post(EXTEND_PATH, parts)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for *record*'s task, or for the track that is still missing where one is there.

        Live answers show both tracks whichever id is given; those of the page show one.

        Raises:
            RequestError: its task id is not known yet, so there is nothing to ask for.
        """
        settled = {track.id for track in record.tracks if track.audio_url or track.failure}
        missing = next((id_ for id_ in record.track_ids if id_ not in settled), None)
        if record.task_id is None or missing is None or not any(track.audio_url for track in record.tracks):
            return super().build_status(record)
        return self.get(self.vendor.status_path, {**self.vendor.status_query, "conversion_id": missing})

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a byId answer means, under the page's keys or the numbered ones that live clients read.

        Raises:
            ProviderError: the call was refused, or names no task; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        answer = self.answers.parse_any(response)
        if answer.code == OK:
            events = conversion_events(answer.body)
            if events:
                return events
            if answer.keys.get("conversion"):
                raise DecodeError(["expected an object @ $.conversion"], where="the status")
        if not answer.is_good:
            raise self.answers.error(response, answer)
        raise self.answers.no_task(response)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return what the body of a delivery means; no page knows of a signature, so the tag is its only proof.

        Raises:
            WebhookError: it is not a delivery of this API, or contradicts itself (400).
            DecodeError: it cannot be read (400).
        """
        return part_events(body)


def _form_text(value: object) -> str:
    """Return *value* as a form shows it: `true` and `false`, and numbers without an exponent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{Decimal(str(value)):f}"
    return str(value)
