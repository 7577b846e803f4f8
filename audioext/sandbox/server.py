"""The sandbox itself: one aiohttp server with the four APIs, its life, and what tests ask of it."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web
from attrs import define, field
from yarl import URL

from . import control, kie, musicgpt, sunoapi, vidgo
from ._bodies import json_response
from .faults import Fault
from .library import TUNE_KEY, VOICE_KEY
from .settings import Settings
from .studio import Studio
from .tasks import Delivery, Submission, Task

__all__ = ["Sandbox"]

#: A request body that is read whole may hold a file in Base64.
BASE64_OVERHEAD = 2
#: How long open requests may go on when the sandbox closes.
SHUTDOWN_SECONDS = 0.5
API_BUILDERS: Mapping[str, Callable[[Studio], web.Application]] = {
    "kie": kie.build,
    "sunoapi": sunoapi.build,
    "vidgo": vidgo.build,
    "musicgpt": musicgpt.build,
}


@define(kw_only=True, eq=False)
class Sandbox(Settings):
    """Stands in for the four APIs on this machine: wire formats, webhooks, and audio that really plays.

    A sandbox is its settings (see `Settings`) and ``async with``::

        async with Sandbox(speed=1e6, faults=["duplicate"]) as sandbox:
            client = Client(Kie(base_url=sandbox.bases["kie"], api_key=sandbox.api_key), ...)
    """

    _studio: Studio | None = field(default=None, init=False, repr=False)
    _runner: web.AppRunner | None = field(default=None, init=False, repr=False)
    _url: str = field(default="", init=False)

    async def __aenter__(self) -> Self:
        """Start serving.

        Raises:
            MissingExtraError: numpy or soundfile are not installed.
            FaultError: One of the faults is none.
            OSError: The address is taken.
        """
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        await self.aclose()

    async def start(self) -> None:
        """Start serving; see `__aenter__` for what may go wrong."""
        studio = Studio(self)

        async def stop(app: web.Application) -> None:
            # Before the server waits for its handlers: a submit may be waiting for its webhooks.
            del app
            await studio.stop()

        app = web.Application(client_max_size=self.max_upload_bytes * BASE64_OVERHEAD)
        for name, build in API_BUILDERS.items():
            app.add_subapp(f"/{name}", build(studio))
        app.router.add_get("/files/{key:.+}", studio.files.serve)  # HEAD comes with GET
        control.add_routes(app, studio, self._show)
        app.on_shutdown.append(stop)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        self._studio, self._runner = studio, runner
        try:
            await web.TCPSite(runner, self.host, self.port).start()
            host, port = runner.addresses[0][:2]
            self._url = self.public_url or str(URL.build(scheme="http", host=host, port=port))
            await studio.open(URL(self._url))
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop serving, end all tasks, remove all files. A second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await runner.cleanup()
        await self._running.aclose()

    async def settled(self) -> None:
        """Wait until no task runs and no webhook is outstanding."""
        await self._running.settled()

    def script(self, *faults: Fault | str, title: str | None = None, times: int | None = None) -> None:
        """Add faults for all tasks to come, for those with such a title, or for the next `times` of them.

        Raises:
            FaultError: A text is no fault; then none is added.
        """
        self._running.script.add(*faults, title=title, times=times)

    def clear_script(self) -> None:
        """Forget all faults; tasks that run keep theirs."""
        self._running.script.clear()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._url

    @property
    def bases(self) -> Mapping[str, str]:
        """Each API's base URL, by name."""
        return {name: f"{self._url}/{name}" for name in API_BUILDERS}

    @property
    def track_ids(self) -> tuple[str, ...]:
        """Ids of ready tracks, which every API that extends by id knows."""
        return self._running.library.ready_ids

    @property
    def tune_url(self) -> str:
        """A ready piece of music, as a source by URL."""
        return self._running.files.url(TUNE_KEY)

    @property
    def voice_url(self) -> str:
        """A ready sung line, as a source by URL."""
        return self._running.files.url(VOICE_KEY)

    @property
    def submissions(self) -> Sequence[Submission]:
        """Every submit that was seen, in order."""
        return tuple(self._running.submissions)

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """Every attempt to send a webhook, in order."""
        return tuple(self._running.deliveries)

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks that are kept, in order."""
        return tuple(self._running.tasks.values())

    def describe(self) -> Mapping[str, object]:
        """Say, in JSON's types, all that a client needs."""
        return {
            "url": self.url,
            "bases": dict(self.bases),
            "api_key": self.api_key,
            "hmac_key": self.hmac_key,
            "speed": self.speed,
            "track_ids": list(self.track_ids),
            "tune_url": self.tune_url,
            "voice_url": self.voice_url,
            "control": f"{self.url}/control",
        }

    @property
    def _running(self) -> Studio:
        if self._studio is None:
            message = "the sandbox is not running; use it in `async with`"
            raise RuntimeError(message)
        return self._studio

    async def _show(self, request: web.Request) -> web.StreamResponse:
        del request
        return json_response(self.describe())
