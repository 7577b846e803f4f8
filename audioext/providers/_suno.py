"""The wire format that kie.ai's and sunoapi.org's routes share: submits, file hosts and recoveries.

Pages: https://docs.kie.ai/suno-api/extend-music, https://docs.sunoapi.org/suno-api/extend-music and their siblings,
https://docs.kie.ai/file-upload-api/quickstart, read 2026-11-21; https://docs.sunoapi.org/suno-api/recovery-audio, read
2026-11-26.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import attrs
from attrs import evolve, field, frozen
from yarl import URL

from audioext.errors import DecodeError
from audioext.http.decoding import camel, link, plain_keys, text
from audioext.http.messages import HttpRequest, HttpResponse, Part
from audioext.models.events import Event, Failed, Progress
from audioext.models.limits import Limits
from audioext.models.requests import Operation
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers._account import file_part, to_base_url
from audioext.providers._answers import AUTH, HTTP_ERROR_FROM, MAYBE_MADE, OK, RATE, Code, CodeTable
from audioext.providers._engine import UNREACHABLE_CALLBACK, EngineAccount, EngineVendor
from audioext.providers._fields import DEFAULT_INSTRUMENTAL_MODEL, wire_names
from audioext.providers._tracks import MAX_TRACKS, read_track
from audioext.providers._words import words
from audioext.providers.base import FileRoute

UPLOAD_FOLDER = "audioext"  # `uploadPath`, without slashes around it: docs.kie.ai/file-upload-api/quickstart
REASONS = {
    # docs.sunoapi.org/suno-api/extend-music-callbacks and docs.kie.ai/suno-api/extend-music-callbacks, read 2026-11-21
    "408": FailureReason.TIMEOUT,
    "451": FailureReason.SOURCE,
    "500": FailureReason.GENERATION,
    "501": FailureReason.GENERATION,
}
suno_vendor = functools.partial(
    EngineVendor,
    file_route=FileRoute.UPLOAD,
    limits=Limits(submits=20, per=10.0),  # docs.kie.ai/1973359m0 and docs.sunoapi.org/suno-api/generate-music
    default_models={Operation.ADD_INSTRUMENTAL: DEFAULT_INSTRUMENTAL_MODEL},
    names=wire_names(camel, url="uploadUrl"),
    calls={
        Operation.EXTEND: "/api/v1/generate/extend",
        Operation.UPLOAD_EXTEND: "/api/v1/generate/upload-extend",
        Operation.ADD_INSTRUMENTAL: "/api/v1/generate/add-instrumental",
    },
    flag_key="defaultParamFlag",
    callback_key="callBackUrl",
    needs_callback=True,  # even if one only polls: docs.kie.ai/suno-api/extend-music, read 2026-11-21
    status_path="/api/v1/generate/record-info",  # docs.kie.ai/suno-api/get-music-details, read 2026-11-21
    status_key="taskId",
)
"""Returns the `EngineVendor` of an API with these routes."""
RECOVERY_PATH = "/api/v1/suno/recovery"
# docs.sunoapi.org/suno-api/get-recovery-audio-details, read 2026-11-26
RECOVERY_RUNNING_CODE, RECOVERY_FAILED = "201", 500

UPLOAD_TABLE = CodeTable(
    # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
    codes={400: Code(), 401: AUTH, 403: AUTH, 405: Code(), 429: RATE, 500: MAYBE_MADE}
)
"""The codes of both vendors' file hosts, where every call is free."""


@frozen
class SunoAccount(EngineAccount):
    """An account; `upload_url` defaults to the vendor's file host, or to `base_url` if that is not the vendor's."""

    upload_url: URL | None = field(default=None, kw_only=True, converter=attrs.converters.optional(to_base_url))

    def build_upload(self, source: Path | str, name: str) -> HttpRequest:
        """Return the call that uploads a local file, or the audio at a URL, to the vendor's file host.

        *name* should be new each time: the same name overwrites, and caches keep the old file for a while
        (docs.kie.ai/file-upload-api/quickstart, read 2026-11-21). A file is streamed from disk; a URL is
        fetched by the vendor within 30 s and should be below 100 MB.
        """
        base = self.upload_url or (self.vendor.upload_url if self.base_url.host in self.vendor.hosts else None)
        if isinstance(source, str):
            body = {"fileUrl": source, "uploadPath": UPLOAD_FOLDER, "fileName": name}
            return self.post("/api/file-url-upload", body, base=base)
        # The texts come first, so that a host that reads the body as a stream knows where the file goes.
        texts = [Part(name="uploadPath", value=UPLOAD_FOLDER), Part(name="fileName", value=name)]
        return self.post("/api/file-stream-upload", [*texts, file_part("file", source, filename=name)], base=base)

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the uploaded file's URL: `downloadUrl`, else another key; live answers had no `fileUrl`."""
        keys = evolve(self.answers, table=UPLOAD_TABLE).parse_free(response)
        for key in ("downloadurl", "fileurl", "url", "data"):
            found = link(keys.get(key))
            if found is not None:
                return found
        raise DecodeError(["required field missing @ $.data.downloadUrl"])


@frozen
class RecoveringAccount(SunoAccount):
    """An account at a vendor that recovers the files of a task with expired links; no page says what it costs."""

    def build_recovery(self, task_id: str, callback: URL | None) -> HttpRequest:
        """Return the POST that starts the recovery of a task's files; the API requires a callback."""
        return self.post(RECOVERY_PATH, {"sunoTaskId": task_id, "callBackUrl": str(callback or UNREACHABLE_CALLBACK)})

    def build_recovery_status(self, recovery_id: str) -> HttpRequest:
        """Return the GET of the state of a recovery; the parameter's name is on no page."""
        return self.get(f"{RECOVERY_PATH}/record-info", {"taskId": recovery_id})

    def parse_recovery_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return the recovered tracks, a failure, or nothing while it runs; or raise ProviderError or DecodeError."""
        answer = self.answers.parse_any(response)
        # No page shows another envelope or a status word; they are read as those of any task.
        tracks = tuple(_recovered(song) for song in answer.songs[:MAX_TRACKS])
        if answer.code == OK and any(track.audio_url for track in tracks):
            return (Progress(claimed_stage=Stage.COMPLETE, tracks=tracks),)
        runs = answer.word.runs or (plain_keys(answer.data).get("data", answer.data) is None and not tracks)
        if text(answer.outer.get("code")) == RECOVERY_RUNNING_CODE or (answer.code == OK and runs):
            return ()
        is_over = answer.code == RECOVERY_FAILED and response.status < HTTP_ERROR_FROM
        if tracks or is_over or (answer.is_good and answer.word.fails):
            said = "; ".join(dict.fromkeys(track.failure for track in tracks if track.failure))
            return (Failed(code=str(answer.code), message=said or answer.text or answer.says()),)
        if answer.code != OK:
            raise answer.error()
        raise DecodeError(["expected a list of tracks @ $.data"], where="the recovery")


def _recovered(song: Mapping[str, object]) -> Track:
    track = read_track(song, [], "$.data")
    said = words(plain_keys(song).get("error")) or "it was not recovered"
    return track if track.audio_url else evolve(track, failure=said)
