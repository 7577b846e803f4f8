"""What the resellers of the Suno engine share, and what kie.ai (both routes) and sunoapi.org share beyond that.

Pages: https://docs.kie.ai/suno-api/extend-music, https://docs.sunoapi.org/suno-api/extend-music and their siblings,
https://docs.kie.ai/file-upload-api/quickstart, read 2026-11-21.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
from attrs import evolve, field, frozen
from yarl import URL

from audioext.errors import DecodeError
from audioext.http.decoding import camel, link, plain_keys
from audioext.http.messages import HttpRequest, HttpResponse, Part
from audioext.models.events import Event
from audioext.models.limits import Limits
from audioext.models.requests import Extend, Operation, Request
from audioext.providers._account import HostedAccount, Vendor, file_part, to_base_url
from audioext.providers._answers import AUTH, MAYBE_MADE, RATE, Code, CodeTable, balance
from audioext.providers._callback import plain_callback
from audioext.providers._fields import DEFAULT_INSTRUMENTAL_MODEL, wire_names, wire_values
from audioext.providers._tasks import Dialect, delivered_events, status_events

UPLOAD_FOLDER = "audioext"  # `uploadPath`, without slashes around it: docs.kie.ai/file-upload-api/quickstart
LIMITS = Limits(submits=20, per=10.0)  # docs.kie.ai/1973359m0 and docs.sunoapi.org/suno-api/generate-music
DEFAULT_MODELS: Mapping[Operation, str] = {Operation.ADD_INSTRUMENTAL: DEFAULT_INSTRUMENTAL_MODEL}

PATHS: Mapping[Operation, str] = {
    Operation.EXTEND: "/api/v1/generate/extend",
    Operation.UPLOAD_EXTEND: "/api/v1/generate/upload-extend",
    Operation.ADD_INSTRUMENTAL: "/api/v1/generate/add-instrumental",
}
CAMEL_NAMES = wire_names(camel, url="uploadUrl")
STATUS_PATH = "/api/v1/generate/record-info"
"""docs.kie.ai/suno-api/get-music-details, read 2026-11-21."""

NOBODY = URL("https://nobody.invalid/audioext")
"""The demanded callback URL where nobody can reach us: a name under `.invalid` never resolves (RFC 2606)."""

UPLOAD_TABLE = CodeTable(
    # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
    codes={400: Code(), 401: AUTH, 403: AUTH, 405: Code(), 429: RATE, 500: MAYBE_MADE}
)
"""The codes of both vendors' file hosts; nothing there costs anything."""


@frozen(kw_only=True)
class EngineVendor(Vendor):
    """The facts of a reseller of the engine: how it speaks of its tasks, and where it tells the credits."""

    dialect: Dialect
    credits_path: str


@frozen
class EngineAccount(HostedAccount):
    """An account at a reseller of the engine."""

    vendor: ClassVar[EngineVendor]

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a status answer means.

        Raises:
            ProviderError: the call was refused, or names no task; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        return status_events(self.answers, response, self.vendor.dialect)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return what the body of a verified delivery means.

        Raises:
            WebhookError: its task ids disagree (400).
            DecodeError: it cannot be read (400).
        """
        return delivered_events(body, self.vendor.dialect)

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        return self.get(self.vendor.credits_path)

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in the vendor's own credits.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        return balance(self.answers.parse_data(response, charged=False))


@frozen(kw_only=True)
class SunoVendor(EngineVendor):
    """The facts of a vendor with a file host, `upload_url`, for its API's own `hosts`."""

    hosts: frozenset[str]
    upload_url: URL


@frozen
class SunoAccount(EngineAccount):
    """An account at kie.ai or sunoapi.org.

    `upload_url` left out means the vendor's own file host as long as `base_url` is the vendor's, else `base_url`
    itself (as in the sandbox).

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[SunoVendor]

    upload_url: URL | None = field(default=None, kw_only=True, converter=attrs.converters.optional(to_base_url))

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return what the body of a verified delivery means; most are as documented, and quickly read.

        Raises:
            WebhookError: its task ids disagree (400).
            DecodeError: it cannot be read (400).
        """
        documented = plain_callback(body)
        return super().parse_webhook(body) if documented is None else (documented,)

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; without a *callback* the demanded one leads nowhere."""
        body = wire_values(request, self.vendor.default_models, names=CAMEL_NAMES, rules=self.vendor.rules)
        if isinstance(request, Extend):
            body["defaultParamFlag"] = request.is_custom
        # Required even by those who only poll: docs.kie.ai/suno-api/extend-music, read 2026-11-21
        body["callBackUrl"] = str(NOBODY if callback is None else callback)
        return self.post(PATHS[request.operation], body)

    def build_upload(self, source: Path | str, name: str) -> HttpRequest:
        """Return the call that brings a local file, or the audio at a URL, to the vendor's file host.

        *name* should be new each time: the same name overwrites, and caches keep the old file for a while
        (docs.kie.ai/file-upload-api/quickstart, read 2026-11-21). A file is streamed from disk; a URL is
        fetched by the vendor within 30 s and should be below 100 MB.
        """
        base = self.upload_url
        if base is None:
            base = self.vendor.upload_url if self.base_url.host in self.vendor.hosts else self.base_url
        if isinstance(source, str):
            body = {"fileUrl": source, "uploadPath": UPLOAD_FOLDER, "fileName": name}
            return self.post("/api/file-url-upload", body, base=base)
        # The texts come first, so that a host that reads the stream knows where the file belongs.
        texts = [Part(name="uploadPath", value=UPLOAD_FOLDER), Part(name="fileName", value=name)]
        return self.post("/api/file-stream-upload", [*texts, file_part("file", source, filename=name)], base=base)

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the URL that a submit can use: `downloadUrl`, then `fileUrl`; live answers had no `fileUrl`.

        Raises:
            ProviderError: the upload was refused; uploads are free.
            DecodeError: the answer names no URL.
        """
        keys = plain_keys(evolve(self.answers, table=UPLOAD_TABLE).parse_data(response, charged=False).data)
        found = link(keys.get("downloadurl")) or link(keys.get("fileurl"))
        if found is None:
            raise DecodeError(["required field missing @ $.data.downloadUrl"])
        return found
