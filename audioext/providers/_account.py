"""An account at a reseller of the Suno engine: the settings and facts that Kie, KieJobs and SunoApi share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs import field, frozen
from yarl import URL

from audioext.errors import Problem, RequestError
from audioext.http.messages import HttpRequest, HttpResponse, Part
from audioext.providers import _http
from audioext.providers._engine import EngineRules, engine_problems, instrumental_model, wire_gender
from audioext.providers._fields import operations_of, refuse_problems
from audioext.providers._suno import Answers, CodeTable
from audioext.providers.base import FileRoute, Limits, Pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from audioext.models.events import SubmitOutcome
    from audioext.models.record import Record
    from audioext.models.requests import Operation, Request

UPLOAD_FOLDER = "audioext"  # `uploadPath`, without slashes around it: docs.kie.ai/file-upload-api/quickstart
SUBMITS_PER_10_SECONDS = 20  # docs.kie.ai/1973359m0 and docs.sunoapi.org/suno-api/generate-music, read 2026-11-21
GRACE_SECONDS = 900.0
DAY_SECONDS = 86_400.0

_WIRE_NAMES: Mapping[str, str] = {
    "audio_id": "audioId",
    "url": "uploadUrl",
    "model": "model",
    "prompt": "prompt",
    "lyrics": "lyrics",
    "style": "style",
    "title": "title",
    "tags": "tags",
    "continue_at": "continueAt",
    "instrumental": "instrumental",
    "negative_tags": "negativeTags",
    "vocal_gender": "vocalGender",
    "style_weight": "styleWeight",
    "weirdness_constraint": "weirdnessConstraint",
    "audio_weight": "audioWeight",
    "persona_id": "personaId",
    "persona_model": "personaModel",
    "variety": "variety",
}
"""Request fields and their names on the per-operation routes; what is not here stays with us."""

# A JSON integer beyond 64 bits cannot be written; floats are exact up to here.
_EXACT_FLOAT = 2**53


@frozen(kw_only=True)
class Vendor:
    """The facts of one wire format at one vendor; `retention` is in seconds."""

    wire_name: str
    key_variable: str
    base_url: URL
    hosts: frozenset[str]
    upload_url: URL
    credits_path: str
    retention: float
    table: CodeTable
    rules: EngineRules


@frozen
class SunoAccount:
    """An API key at one vendor, with the addresses and limits that belong to it.

    `base_url` may carry a path prefix. `upload_url` left out means the vendor's own file host as long as
    `base_url` is the vendor's, else `base_url` itself (as in the sandbox). `name` is the segment of the
    callback path; two accounts at one API need two names. `grace` and `retention` are in seconds.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor]
    file_route: ClassVar[FileRoute] = FileRoute.UPLOAD
    extends_by_id: ClassVar[bool] = True
    counts_takes: ClassVar[bool] = False

    api_key: str | None = field(default=None, converter=_http.to_api_key, repr=False)
    base_url: URL = field(
        default=attrs.Factory(lambda self: self.vendor.base_url, takes_self=True),
        kw_only=True,
        converter=_http.to_base_url,
    )
    upload_url: URL | None = field(default=None, kw_only=True, converter=attrs.converters.optional(_http.to_base_url))
    name: str = field(
        default=attrs.Factory(lambda self: self.vendor.wire_name, takes_self=True),
        kw_only=True,
        converter=_http.to_name,
    )
    limits: Limits = field(default=Limits(submits=SUBMITS_PER_10_SECONDS, per=10.0), kw_only=True)
    pace: Pace = field(factory=Pace, kw_only=True)
    grace: float = field(default=GRACE_SECONDS, kw_only=True)
    retention: float | None = field(
        default=attrs.Factory(lambda self: self.vendor.retention, takes_self=True), kw_only=True
    )

    @property
    def account(self) -> str:
        """Whose limits count: the host and a digest of the key, so that Kie and KieJobs share theirs."""
        digest = hashlib.sha256(f"audioext account {self.api_key}".encode()).hexdigest()[:12]
        return f"{self.base_url.authority}/{digest}"

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key where none is given."""
        return self.vendor.key_variable

    @property
    def operations(self) -> frozenset[Operation]:
        """The operations that the wire format has."""
        return operations_of(self.vendor.wire_name)

    @property
    def answers(self) -> Answers:
        """The reader of this account's answers."""
        return Answers(provider=self.name, table=self.vendor.table, secret=self.api_key)

    def check(self, request: Request) -> tuple[Problem, ...]:
        """Return all that this API would refuse in *request*, and advice; the request may hold a file.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        return engine_problems(request, self.vendor.rules)

    def check_callback(self, callback: URL) -> str | None:  # noqa: ARG002 - the protocol's
        """Return `None`: no page says that a callback address is refused."""
        return None

    def sent_model(self, request: Request) -> str | None:
        """Return the model that `build_submit` names: for an instrumental without one, V4_5PLUS."""
        return instrumental_model(request)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        return self.answers.parse_submit(response)

    def build_upload(self, source: Path | str, name: str) -> HttpRequest:
        """Return the call that brings a local file, or the audio at a URL, to the vendor's file host.

        *name* should be new each time: the same name overwrites, and caches keep the old file for a while
        (docs.kie.ai/file-upload-api/quickstart, read 2026-11-21). A file is streamed from disk; a URL is
        fetched by the vendor within 30 s and should be below 100 MB.
        """
        if isinstance(source, str):
            body = {"fileUrl": source, "uploadPath": UPLOAD_FOLDER, "fileName": name}
            return _http.post_json(self._upload_address("/api/file-url-upload"), self._bearer, body)
        return HttpRequest(
            method="POST",
            url=self._upload_address("/api/file-stream-upload"),
            headers=_http.headers(self._bearer),
            # The texts come first, so that a host that reads the stream knows where the file belongs.
            parts=(
                Part(name="uploadPath", value=UPLOAD_FOLDER),
                Part(name="fileName", value=name),
                Part(name="file", path=source, filename=name),
            ),
        )

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the URL that a submit can use.

        Raises:
            ProviderError: the upload was refused.
            DecodeError: the answer names no URL.
        """
        return self.answers.parse_upload(response)

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        return self._get(self.vendor.credits_path)

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in the vendor's own credits.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        return self.answers.parse_credits(response)

    @property
    def _bearer(self) -> str | None:
        return _http.bearer(self.api_key)

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> HttpRequest:
        return _http.get(_http.join(self.base_url, path).with_query(query), self._bearer)

    def _post(self, path: str, body: Mapping[str, object]) -> HttpRequest:
        return _http.post_json(_http.join(self.base_url, path), self._bearer, body)

    def _upload_address(self, path: str) -> URL:
        base = self.upload_url
        if base is None:
            base = self.vendor.upload_url if self.base_url.host in self.vendor.hosts else self.base_url
        return _http.join(base, path)

    def _refuse_problems(self, request: Request) -> None:
        found: Iterable[Problem] = self.check(request)
        if request.file is not None:
            found = (*found, Problem("file", f"must be uploaded first: {self.name} takes a URL"))
        refuse_problems(request, found)


def wire_values(request: Request) -> dict[str, object]:
    """Return the given fields that go on the wire, in the engine's spelling of their values."""
    given = request.given()
    values = {name: given[name] for name in _WIRE_NAMES if name in given}
    model = instrumental_model(request)
    if model is not None:
        values["model"] = model
    if request.vocal_gender is not None:
        values["vocal_gender"] = wire_gender(request.vocal_gender)
    return {name: _writable(value) for name, value in values.items()}


def camel_case(values: Mapping[str, object]) -> dict[str, object]:
    """Return *values* under the names of the per-operation routes."""
    return {_WIRE_NAMES[name]: value for name, value in values.items()}


def task_query(record: Record) -> dict[str, str]:
    """Return the query that names the task of *record*.

    Raises:
        RequestError: its task id is not known yet, so there is nothing to ask for.
    """
    if record.task_id is None:
        raise RequestError([Problem("task_id", "is not known yet: nothing can be asked about this job")])
    return {"taskId": record.task_id}


def _writable(value: object) -> object:
    return float(value) if type(value) is int and abs(value) > _EXACT_FLOAT else value
