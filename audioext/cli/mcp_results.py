"""What the MCP tools return: jobs as an agent sees them, and errors that say what happened to the money."""

from __future__ import annotations

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, Field

from audioext.cli.execution import error_facts
from audioext.errors import AudioextError, DownloadError, ProviderError
from audioext.models.record import Verdict
from audioext.runtime.jobs import Job, JobExpiredError, JobFailedError, StageTimeoutError, SubmitUnknownError
from audioext.ui.objects import job_object, state_of, track_object

SONGS = "audioext://songs/"
ERROR_FACTS = "audioext/error"
"""Where the facts of an error stand in the `_meta` of a result."""


class TrackInfo(BaseModel):
    """One track: its links die some days after it was made."""

    id: str | None = Field(default=None, description="What `extend` takes as `audio_id`.")
    title: str | None = None
    duration: float | None = Field(default=None, description="Seconds.")
    audio_url: str | None = None
    image_url: str | None = None
    resource: str | None = Field(description="The resource that is the audio file, once the job is complete.")


class JobInfo(BaseModel):
    """A job: how far it is, what came of it, and how to go on."""

    ref: str
    state: str = Field(
        description="submitting, submitted, text, first (a track can be heard), complete; failed, refused, expired; or"
        " unknown: nobody knows whether the task was made."
    )
    is_new: bool = Field(description="Whether this very call submitted it, rather than found it by its key.")
    provider: str
    operation: str
    key: str | None
    created_at: str
    tracks: list[TrackInfo]
    problem: str | None = Field(description="What went wrong, in the provider's words.")
    charged: bool | None = Field(description="Of a job that failed: whether it was paid for; null if nobody says.")
    next: str = Field(description="What to do now.")


class JobList(BaseModel):
    """The jobs of the store."""

    jobs: list[JobInfo] = Field(description="The newest first.")


class SavedFiles(BaseModel):
    """The files of a song."""

    ref: str
    files: list[str] = Field(description="One path a track, on the machine of this server.")


class Balance(BaseModel):
    """What is left."""

    provider: str
    credits: float = Field(description="In the provider's own credits.")


def job_info(job: Job) -> JobInfo:
    """Return *job* as an agent sees it."""
    tracks, place = [], 0
    for track in job.record.tracks:
        place += track.audio_url is not None
        is_there = job.verdict is Verdict.COMPLETE and track.audio_url is not None
        resource = f"{SONGS}{job.ref}/{place}" if is_there else None
        tracks.append(TrackInfo.model_validate({**track_object(track), "resource": resource}))
    charged = None if job.failure is None else job.failure.charged
    facts = {"is_new": job.is_new, "tracks": tracks, "charged": charged, "next": _next_step(job)}
    return JobInfo.model_validate(job_object(job.record) | facts)


def money(error: AudioextError) -> str:
    """Return what happened to the money, in one sentence."""
    if isinstance(error, (SubmitUnknownError, JobExpiredError)):
        return (
            "Nobody knows whether it was charged: look at the provider's task list before you submit with another key."
        )
    if isinstance(error, (ProviderError, JobFailedError)):
        known = {True: "It was charged.", False: "Nothing was charged.", None: "No page says whether it was charged."}
        return known[error.charged]
    if isinstance(error, DownloadError):
        return "The song is made and paid for; saving it again costs nothing."
    if isinstance(error, StageTimeoutError):
        return "The task goes on; `wait` costs nothing more."
    return "This call charged nothing."


def _next_step(job: Job) -> str:
    state = state_of(job.record)
    if state == "complete":
        return f"Call `save` with ref {job.ref}, or read the tracks' resources or links, which die within days."
    if state == "unknown":
        return (
            f"Nobody knows whether the task was made: look at {job.provider} before you submit with another key. A late"
            " callback still completes it, and the same key submits nothing."
        )
    if job.verdict is Verdict.OPEN:
        return f"Call `wait` with ref {job.ref}; it goes on by itself, and takes two to four minutes in all."
    if state == "expired":
        return "It was given up after a day; a late callback still completes it. Another key submits anew, and pays."
    return "Mend what `problem` says, and submit again with another key."


def error_result(error: AudioextError) -> CallToolResult:
    """Return *error* as the result of a call: a text, and beside it the facts that a program may branch on.

    They are no structured content: clients refuse what does not look as the tool's results do.
    """
    cost = money(error)
    facts = {"type": type(error).__name__, "message": str(error), "money": cost, **error_facts(error)}
    content = TextContent(text=f"{error}\n{cost}")
    return CallToolResult(content=[content], is_error=True, _meta={ERROR_FACTS: facts})
