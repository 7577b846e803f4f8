"""The recovery of files whose links died: https://docs.sunoapi.org/suno-api/recovery-audio, read 2026-11-26.

kie.ai lists the same operation among its older models. No page says what it costs.
"""

from attrs import frozen
from yarl import URL

from audioext.errors import DecodeError
from audioext.http.decoding import link, plain_keys, text
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Event, Failed, Progress, SubmitOutcome
from audioext.models.results import Stage, Track
from audioext.providers._answers import HTTP_ERROR_FROM
from audioext.providers._suno import NOBODY, SunoAccount
from audioext.providers._tracks import MAX_TRACKS
from audioext.providers._words import words

PATH = "/api/v1/suno/recovery"
STATUS_PATH = f"{PATH}/record-info"
# docs.sunoapi.org/suno-api/get-recovery-audio-details, read 2026-11-26
RUNNING, DONE, FAILED = "201", 200, 500


@frozen
class RecoveringAccount(SunoAccount):
    """An account at a vendor that brings back the files of a task whose links died."""

    def build_recovery(self, task_id: str, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the recovery of a task's files; its callback is required."""
        return self.post(PATH, {"sunoTaskId": task_id, "callBackUrl": str(callback or NOBODY)})

    def parse_recovery(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a recovery was made, refused or unknown; where its id stands is on no page."""
        return self.answers.parse_submit(response)

    def build_recovery_status(self, recovery_id: str) -> HttpRequest:
        """Return the GET that asks for the state of a recovery; the parameter's name is on no page."""
        return self.get(STATUS_PATH, {"taskId": recovery_id})

    def parse_recovery_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what came back, or a failure; nothing while it is under way.

        Raises:
            ProviderError: the call was refused; that says nothing of the recovery.
            DecodeError: the answer cannot be read.
        """
        answer = self.answers.parse_any(response)
        found = answer.data
        found = plain_keys(found).get("data", found)  # in an envelope of its own it is as likely
        items = found if isinstance(found, list) else []
        if text(answer.keys.get("code")) == RUNNING or (answer.code == DONE and found is None):
            return ()
        tracks = tuple(_track(item) for item in items[:MAX_TRACKS] if isinstance(item, dict))
        if answer.code == DONE and any(track.audio_url for track in tracks):
            return (Progress(claimed_stage=Stage.COMPLETE, tracks=tracks),)
        is_over = answer.code == FAILED and response.status < HTTP_ERROR_FROM
        if tracks or is_over:
            said = "; ".join(dict.fromkeys(track.failure for track in tracks if track.failure))
            return (Failed(code=str(answer.code), message=said or answer.says),)
        if answer.code != DONE:
            raise self.answers.error(response, answer)
        raise DecodeError(["expected a list of tracks @ $.data"], where="the recovery")


def _track(item: object) -> Track:
    keys = plain_keys(item)
    audio_url = link(keys.get("audiourl"))
    failure = None if audio_url else words(keys.get("error")) or "it did not come back"
    return Track(id=text(keys.get("id")), title=text(keys.get("title")), audio_url=audio_url, failure=failure)
