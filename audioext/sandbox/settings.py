"""What can be set about a sandbox, with the documented limits and times as the defaults."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, validators

from audioext.sandbox.faults import Fault

MEBIBYTE_BYTES = 1024 * 1024


def _listed(faults: Sequence[Fault | str]) -> Sequence[Fault | str]:
    """Return a single text as a list: its letters are no faults."""
    return (faults,) if isinstance(faults, str) else faults


@define(kw_only=True, eq=False)
class SandboxSettings:
    """How a sandbox behaves. All seconds are the API's seconds, divided by `speed`, unless said otherwise."""

    host: str = "127.0.0.1"
    port: int = 0
    origin_port: int = 0
    """The first of four consecutive ports, one for each API's bare origin; 0: any free ones."""
    public_url: str | None = None
    """The address for clients, if it differs from the listening one."""
    speed: float = field(default=60.0, validator=validators.gt(0))
    """How many times faster than the real APIs; huge numbers make tasks instant."""
    api_key: str = field(default="sandbox-key", repr=False)
    """The one key that all four APIs accept."""
    hmac_key: str | None = field(default=None, repr=False)
    """kie.ai's `webhookHmacKey`; without one, as at kie.ai, webhooks carry no signature."""
    faults: Sequence[Fault | str] = field(default=(), converter=_listed)
    seed: int | None = None
    """Decides everything random: ids, audio, the order of MusicGPT's webhooks, faults with a chance.

    None: like 0, but with ids that are unique across runs, which a store that outlives the sandbox needs.
    """
    faithful: str = field(default="page", validator=validators.in_(("page", "live")))
    """What to follow if a vendor's pages and recordings of its API differ.

    Live: kie.ai's `record-info` answers an unknown task with code 200 and `data` null, takes an unknown `audioId` and a
    custom upload-extend without style and title at the submit (April 2026), and MusicGPT's `byId` needs no
    `conversionType`.
    """

    # "Stream URL in 30-40 s, file in 2-3 min": https://docs.sunoapi.org/suno-api/generate-music
    text_seconds: float = 10.0
    first_seconds: float = 35.0
    complete_seconds: float = 120.0
    spread_seconds: float = 30.0
    """Tasks take up to this much longer than `complete_seconds`, depending on their number."""

    submit_limit: int | None = 20
    """New tasks in `submit_window_seconds` (real seconds) per account: kie.ai, sunoapi.org. None: no limit."""
    submit_window_seconds: float = 10.0
    parallel_limit: int | None = 10
    """Open tasks at MusicGPT; a Pro plan has 10 (utilities/ratelimits). None: no limit."""
    credits: float = 100_000.0
    """The balance at each API."""
    price: float = 12.0
    """The credits for a task: 12 at kie.ai; no page states the others'."""

    retry_seconds: Sequence[float] | None = None
    """Waits before each further attempt of a webhook. None: what each API documents, or our guess where none does."""
    callback_timeout_seconds: float | None = None
    """How long, in real seconds, a webhook may take. None: each API's documented 15 or 10."""

    ready_seconds: float = 75.0
    """The length of the ready tracks."""
    extension_seconds: float = 20.0
    """The length that an extension adds."""

    keep_tasks: int = 5_000
    """How many tasks, files and log entries are kept; the oldest are dropped first."""
    keep_files: int = 30_000
    keep_entries: int = 10_000
    max_upload_bytes: int = 100 * MEBIBYTE_BYTES
    fetch_timeout_seconds: float = 30.0
    """How long, in real seconds, fetching a source may take (30 s: kie.ai's file-url-upload)."""

    @property
    def dice(self) -> int:
        """The seed of everything random but the ids."""
        return 0 if self.seed is None else self.seed

    def real(self, seconds: float) -> float:
        """Convert the API's seconds to real seconds."""
        return max(seconds, 0.0) / self.speed
