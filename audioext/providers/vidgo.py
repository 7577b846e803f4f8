"""vidgo.ai: https://docs.vidgo.ai/api-manual/music-series/extend-music and its siblings, read 2026-11-21.

One path for every operation, with the parameters in snake case under `input`; one webhook, at the end, with the same
body as the status answer. Only the status word counts, since failures come with `code` 200 as well. A sibling of the
API sends the same bodies without the envelope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import field, frozen
from yarl import URL

from audioext.http.urls import is_loopback, may_be_public
from audioext.models import checks
from audioext.models.requests import AddInstrumental, Operation, Request
from audioext.providers._answers import CodeTable
from audioext.providers._engine import EngineAccount, EngineVendor
from audioext.providers._fields import FieldRules, wire_names

MAX_CALLBACK_LENGTH = 2048  # docs.vidgo.ai/api-manual/task-management/webhooks, read 2026-11-21

_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5"})

RULES = FieldRules(
    wire_name="vidgo",
    # docs.vidgo.ai/api-manual/music-series/extend-music and upload-and-extend-audio, read 2026-11-21
    models=_MODELS,
    # docs.vidgo.ai/api-manual/music-series/add-instrumental, read 2026-11-21
    instrumental_models=frozenset({"V4_5PLUS", "V5"}),
    stated=_MODELS,
    # No default is stated: docs.vidgo.ai/api-manual/music-series/upload-and-extend-audio
    upload_needs_instrumental=True,
    # On no page of vidgo's; only a sibling of the API states it, so it is advice.
    lengths={Operation.ADD_INSTRUMENTAL: {"title": 100}},
)

MODEL_KEYS = ("model", "mv")
"""The wire names that `model` may have when adding an instrumental."""
NAMES_BY_MODEL_KEY = {key: wire_names(url="upload_url", model=key) for key in MODEL_KEYS}


@frozen
class Vidgo(EngineAccount):
    """vidgo.ai; `Kie` describes the settings that both have.

    `instrumental_model_key` is the wire name of the model when adding an instrumental: the page's text says `model`,
    its example has none, and the extend pages and a sibling of the API say `mv`.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[EngineVendor] = EngineVendor(
        rules=RULES,
        key_variable="VIDGO_API_KEY",
        base_url=URL("https://api.vidgo.ai"),
        # The page's example shows no query; only a sibling of the API documents that the id goes there.
        status_path="/api/generate/detail/music",  # docs.vidgo.ai/api-manual/music-series/query-music-detail
        credits_path="/api/user/balance",  # docs.vidgo.ai/api-manual/account-management/user-balance, read 2026-11-21
        # Only finished tasks are charged: the same page.
        charged=False,
        code_can_fail_task=False,
        submit_path="/api/generate/submit",
        calls={
            Operation.EXTEND: "extend-music",
            Operation.UPLOAD_EXTEND: "upload-and-extend-audio",
            Operation.ADD_INSTRUMENTAL: "add-instrumental",
        },
        flag_key="default_param_flag",
        callback_key="callback_url",
        # No page shows an error body or lists codes: HTTP's meanings, and the keys under which third-party clients have
        # found the text, in their order. Copyright refusals come with 400 at a sibling.
        table=CodeTable(text_keys=("error", "detail", "msg", "message", "errormessage")),
    )

    instrumental_model_key: str = field(
        default="model", kw_only=True, validator=checks.setting(checks.one_of(" or ".join(MODEL_KEYS), MODEL_KEYS))
    )

    def check_callback(self, callback: URL) -> str | None:
        """Return why vidgo would never call *callback*, or `None` if it would.

        docs.vidgo.ai/api-manual/task-management/webhooks, read 2026-11-21: HTTPS only, at most 2,048 characters,
        no private or internal address. A base URL on loopback is a sandbox, which calls any address.
        """
        if is_loopback(self.base_url.host):
            return None
        if callback.scheme != "https":
            return "vidgo calls only https addresses"
        if not may_be_public(callback.host):
            return f"vidgo does not call private or internal addresses such as {callback.host}"
        length = len(str(callback))
        if length > MAX_CALLBACK_LENGTH:
            return f"vidgo takes callback addresses of at most {MAX_CALLBACK_LENGTH} characters, not {length}"
        return None

    def names(self, request: Request) -> Mapping[str, str]:
        """Return the wire names; that of the model is `mv` (for uploads a guess), or `instrumental_model_key`."""
        return NAMES_BY_MODEL_KEY[self.instrumental_model_key if isinstance(request, AddInstrumental) else "mv"]
