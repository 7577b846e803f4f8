"""How the audio of a request reaches its provider: uploaded, inside the submit, or served by our own receiver."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs
from attrs import define, field, frozen
from tinytag import TinyTag, TinyTagException
from yarl import URL

from audioext.clock import Clock, mint_id
from audioext.errors import Problem, ProviderDownError, UnsupportedError, cut, shown
from audioext.files.formats import safe_name
from audioext.files.serving import Offers
from audioext.files.spool import HEAD_BYTES, Spool, SpoolError, suffix_of
from audioext.http.messages import HttpRequest
from audioext.http.transport import BrokenError, NotSentError, Progress, Transport
from audioext.http.urls import FILES_SEGMENT
from audioext.models import checks
from audioext.models.requests import Request
from audioext.providers.base import FileRoute, Provider, Uploads

UPLOAD_ATTEMPTS = 3


@frozen(kw_only=True)
class SourceInfo:
    """What is known of a local file before it is sent: its size in bytes, its duration in seconds."""

    size: int
    duration: float | None


def probe(path: Path, name: str | None = None) -> SourceInfo | Problem:
    """Look at the file at *path*, which messages call *name*, or say what is wrong with it. It blocks: use a thread."""
    name = cut(str(path)) if name is None else name
    try:
        if path.is_dir():
            return Problem("file", f"{name} is a folder: name a file in it")
        if not path.is_file():
            return Problem("file", f"there is no file at {name}")
        size = path.stat().st_size
        if size == 0:
            return Problem("file", f"{name} is empty")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return Problem("file", f"{name} cannot be read: {error.strerror or error}")
    try:
        duration = TinyTag.get(path, tags=False).duration
    except (TinyTagException, OSError, ValueError, ArithmeticError, IndexError, LookupError):
        duration = None  # a format that it does not know is for the provider to judge
    if not duration and suffix_of(head) is None:
        return Problem("file", f"{name} is not an audio file: it begins with {shown(head)}")
    return SourceInfo(size=size, duration=duration if duration and duration > 0 else None)


def fingerprint(path: Path) -> str:
    """Return a digest of what is in the file, or raise OSError. It blocks: call it in a thread."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@define(kw_only=True, eq=False, repr=False)
class Sources:
    """Brings a request's file along, or its URL where that has to be hosted elsewhere first."""

    transport: Transport
    offers: Offers
    clock: Clock
    serve_files: bool
    public_url: Callable[[], URL | None]
    """Where our own receiver can be reached, `None` where this process has none."""
    spool: Spool = field(factory=Spool, init=False)
    """Where bytes and file objects are kept."""

    async def look(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return *request* with its audio in a file and its duration, and what is wrong with the file."""
        source, name = request.file, None
        if source is None or checks.file(source) is not None:
            return request, []
        if not isinstance(source, Path):
            name = "what was given as file="
            try:
                source = await self.spool.keep(source)
            except SpoolError as error:
                return request, [Problem("file", str(error))]
        found = await asyncio.to_thread(probe, source, name)
        fields = {**request.given(), "file": source}
        if isinstance(found, SourceInfo) and found.duration is not None:
            fields.setdefault("source_duration", found.duration)
        return type(request).draft(**fields), [found] if isinstance(found, Problem) else []

    def release(self, request: Request, offer: str | None = None) -> None:
        """Serve the file of *request* no more, and remove it if it is a temporary one of ours."""
        if offer is not None:
            self.offers.withdraw(offer)
        if request.path is not None:
            self.spool.drop(request.path)

    async def bring(
        self, request: Request, provider: Provider, progress: Progress | None
    ) -> tuple[Request, str | None]:
        """Return the request as it goes out, and the offer under which we serve its file, if we do."""
        path = request.path
        if path is not None and self.serves(request, provider):
            public_url, offer = self.public_url(), self.offers.offer(path)
            assert public_url is not None  # noqa: S101 - `check_order` refused this
            return _by_url(request, str(public_url.joinpath(FILES_SEGMENT, *offer.split("/")))), offer
        if path is not None and provider.info.file_route is FileRoute.UPLOAD and isinstance(provider, Uploads):
            built = provider.build_upload(path, f"{mint_id(self.clock.now())}{path.suffix.lower()}")
            return _by_url(request, await self._upload(provider, built, progress)), None
        if request.rehost and request.url is not None:
            if not isinstance(provider, Uploads):
                raise UnsupportedError(f"{provider.info.name} has no url-upload, so rehost=True cannot be done there")
            name = f"{mint_id(self.clock.now())}-{safe_name(URL(request.url).name) or 'audio'}"
            url = await self._upload(provider, provider.build_upload(request.url, name), progress)
            return _by_url(request, url), None
        return request, None

    def serves(self, request: Request, provider: Provider) -> bool:
        """Say whether our own receiver has to serve the file."""
        return request.file is not None and (self.serve_files or provider.info.file_route is FileRoute.SERVE)

    async def _upload(self, provider: Provider, request: HttpRequest, progress: Progress | None) -> str:
        assert isinstance(provider, Uploads)  # noqa: S101 - both callers looked
        for attempt in range(1, UPLOAD_ATTEMPTS + 1):
            try:
                return provider.parse_upload(await self.transport.send(request, progress=progress))
            except (NotSentError, BrokenError) as error:  # an upload costs nothing, so it may be repeated
                if attempt == UPLOAD_ATTEMPTS:
                    raise ProviderDownError(
                        f"the upload failed: {error}", provider=provider.info.name, retryable=True, charged=False
                    ) from error
        raise AssertionError  # pragma: no cover - the last attempt returns or raises


def _by_url(request: Request, url: str) -> Request:
    return attrs.evolve(request, file=None, url=url)
