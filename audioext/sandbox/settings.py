"""What can be set about a sandbox, with the documented limits and times as the defaults."""

from collections.abc import Sequence

from attrs import define, field, validators

from .faults import Fault

__all__ = ["Settings"]

MEBIBYTE_BYTES = 1024 * 1024


@define(kw_only=True, eq=False)
class Settings:
    """How a sandbox behaves. All seconds are the API's seconds, divided by `speed`, unless said otherwise."""

    host: str = "127.0.0.1"
    port: int = 0
    #: The address that clients reach it by, where it is not the one that it listens at.
    public_url: str | None = None
    #: How many times faster than the real APIs; huge numbers make tasks instant.
    speed: float = field(default=60.0, validator=validators.gt(0))
    #: The one key that all four APIs accept.
    api_key: str = field(default="sandbox-key", repr=False)
    #: kie.ai's `webhookHmacKey`; without one, as at kie.ai, webhooks carry no signature.
    hmac_key: str | None = field(default=None, repr=False)
    faults: Sequence[Fault | str] = ()
    #: Decides all that varies: ids, audio, the order of MusicGPT's webhooks, faults with a chance. None: as 0, but
    #: with ids that no other run has, as at the real APIs; a store that outlives the sandbox needs that.
    seed: int | None = None

    # "Stream URL in 30-40 s, file in 2-3 min": https://docs.sunoapi.org/suno-api/generate-music (sheet 7).
    text_seconds: float = 10.0
    first_seconds: float = 35.0
    complete_seconds: float = 120.0
    #: Tasks take up to so much longer than `complete_seconds`, by their number.
    spread_seconds: float = 30.0

    #: New tasks in `submit_window_seconds` (real seconds) per account: kie.ai, sunoapi.org (sheet 8.3). None:
    #: no limit.
    submit_limit: int | None = 20
    submit_window_seconds: float = 10.0
    #: Open tasks at MusicGPT; a Pro plan has 10 (utilities/ratelimits, sheet 2.6). None: no limit.
    parallel_limit: int | None = 10
    #: The balance at each API, and the price of a task; 12 at kie.ai (sheet 10), no page states the others'.
    credits: float = 100_000.0
    price: float = 12.0

    #: Waits before each further attempt. None: what each API documents, or our guess where none does.
    retry_seconds: Sequence[float] | None = None
    #: How long, in real seconds, a callback may take. None: each API's documented 15 or 10.
    callback_timeout_seconds: float | None = None

    #: KieJobs' callback: "legacy" or "status" shape. No page shows one (sheet B).
    jobs_callback: str = field(default="legacy", validator=validators.in_(("legacy", "status")))
    #: Where KieJobs' results are: data, response.data, resultUrls, resultObject (sheet B).
    jobs_result: str = field(
        default="data",
        validator=validators.in_(("data", "response.data", "resultUrls", "resultObject")),
    )
    #: sunoapi.org's callbacks name the task as `task_id` or `taskId` (sheet 5.2).
    sunoapi_task_key: str = field(default="task_id", validator=validators.in_(("task_id", "taskId")))

    #: The length of the ready tracks, and of what an extension adds.
    ready_seconds: float = 75.0
    extension_seconds: float = 20.0

    #: How many tasks, files and log entries are kept; the oldest go first.
    keep_tasks: int = 5_000
    keep_files: int = 30_000
    keep_entries: int = 10_000
    #: How many decoded sources stay in memory.
    keep_clips: int = 4
    max_upload_bytes: int = 100 * MEBIBYTE_BYTES
    #: How long, in real seconds, fetching a source may take (30 s: file-url-upload, sheet 9).
    fetch_timeout_seconds: float = 30.0

    @property
    def dice(self) -> int:
        """The seed of whatever varies beside the ids."""
        return 0 if self.seed is None else self.seed
