"""What the provider tests share: stored samples, values to build requests from, and readable summaries.

A folder `tests/support/samples/<provider>/` is found by its name (hyphens as underscores). Its `index.json` lists
the samples: `file`, `source` (where the shape was seen), `parse` (which method reads it), for answers
`status` and `headers`, for deliveries `headers` and `received_at`, `settings` (keywords of the provider),
and `means`: a list of events, an outcome, a plain value, or `{"raises": {...}}`. Fields that have their
default are left out of `means`; stages are written by name, times in ISO form. One sample of each
provider, of a complete task, has `vital`: a pattern of the keys that its files depend on.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import cast

import attrs
import msgspec
import pytest
from attrs import field, frozen
from hypothesis import strategies as st

from audioext import Kie, KieJobs, MusicGpt, SunoApi, Vidgo
from audioext.errors import AudioextError, ProviderError, RateLimitError, WebhookError
from audioext.http.messages import HttpResponse, Webhook
from audioext.models.events import Submitted
from audioext.models.record import Asked, Record
from audioext.models.requests import AddInstrumental, Extend, Operation, Request
from audioext.models.results import Track
from audioext.providers import NAMES, load
from audioext.providers.base import Provider

SAMPLES = Path(__file__).parents[2] / "support" / "samples"
AnyProvider = Kie | KieJobs | SunoApi | Vidgo | MusicGpt
MakeProvider = Callable[..., AnyProvider]


@frozen(kw_only=True)
class Sample:
    """One stored answer or delivery, and its expected meaning."""

    provider: str
    file: str
    parse: str
    means: object
    source: str
    body: bytes = field(repr=False)
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    received_at: float | None = None
    settings: Mapping[str, object] = field(factory=dict)
    vital: str = ""

    def read(self, provider: Provider) -> object:
        """Return what *provider* decodes it to."""
        method = getattr(provider, f"parse_{self.parse}")
        if self.parse == "webhook":
            provider.verify_webhook(Webhook(headers=self.headers, body=self.body, received_at=self.received_at))
            return method(self.body)
        return method(HttpResponse(status=self.status, headers=self.headers, body=self.body))


def load_samples() -> list[Sample]:
    """Return every sample of every provider, in the order of the indexes."""
    found: list[Sample] = []
    for index in sorted(SAMPLES.glob("*/index.json")):
        for entry in json.loads(index.read_text(encoding="utf-8")):
            body = (index.parent / entry["file"]).read_bytes()
            found.append(Sample(provider=index.parent.name.replace("_", "-"), body=body, **entry))
    return found


def summary(value: object) -> object:
    """Return *value* as JSON, without the fields that have their default."""
    if isinstance(value, AudioextError):
        return _error_summary(value)
    if isinstance(value, enum.Enum):
        return value.name if isinstance(value, int) else value.value
    if isinstance(value, (list, tuple)):
        return [summary(item) for item in value]
    if attrs.has(type(value)):
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))
        return _fields_summary(value, {each.name: each.default for each in fields})
    if isinstance(value, msgspec.Struct):
        return _fields_summary(value, {each.name: each.default for each in msgspec.structs.fields(value)})
    return value.isoformat() if isinstance(value, datetime) else value


def _fields_summary(value: object, defaults: Mapping[str, object]) -> dict[str, object]:
    shown = {
        name: summary(getattr(value, name)) for name, default in defaults.items() if getattr(value, name) != default
    }
    return shown if isinstance(value, Track) else {type(value).__name__: shown}


def _error_summary(error: AudioextError) -> dict[str, object]:
    shown: dict[str, object] = {"type": type(error).__name__}
    if isinstance(error, ProviderError):
        shown.update(code=error.code, retryable=error.retryable, charged=error.charged)
    if isinstance(error, RateLimitError) and error.retry_after is not None:
        shown["retry_after"] = error.retry_after
    if isinstance(error, WebhookError):
        shown["http_status"] = error.http_status
    return shown


SOURCE_BY_OPERATION: Mapping[Operation, Mapping[str, object]] = {
    Operation.EXTEND: {"audio_id": "b1c2d3e4-0000-4000-8000-00000000aa01"},
    Operation.UPLOAD_EXTEND: {"url": "https://files.example/source.mp3"},
    Operation.ADD_INSTRUMENTAL: {"url": "https://files.example/voice.mp3"},
}
FIELD_VALUES: Mapping[str, object] = {
    "model": "V5",
    "title": "Part two",
    "tags": "piano, soft",
    "negative_tags": "metal",
    "continue_at": 42.5,
    "prompt": "a gentle bridge",
    "style": "ambient",
    "lyrics": "la la la",
    "lyrics_section_to_extend": "and on it goes",
    "vocal_gender": "male",
    "style_weight": 0.65,
    "weirdness_constraint": 0.35,
    "audio_weight": 0.15,
    "persona_id": "persona-7",
    "persona_model": "style_persona",
    "instrumental": False,
    "variety": 3,
    "num_outputs": 2,
    "generate_album_cover": True,
    "lyrics_timestamps": True,
    "custom": True,
    "source_duration": 55.0,
}
"""One valid value for each field; together they make a valid request wherever the fields are taken."""


def make_request(operation: Operation, **fields: object) -> Request:
    """Return a valid request of *operation* with these *fields*."""
    kind = AddInstrumental if operation is Operation.ADD_INSTRUMENTAL else Extend
    request = kind.draft(**{**SOURCE_BY_OPERATION[operation], **fields})
    assert () == request.problems()
    return request


LEAST_FIELDS: Mapping[Operation, Mapping[str, object]] = {
    Operation.EXTEND: {"model": "V5"},
    Operation.UPLOAD_EXTEND: {"model": "V5", "continue_at": 42.5},
    Operation.ADD_INSTRUMENTAL: {"title": "Rain", "tags": "piano", "negative_tags": ""},
}


def make_record(task_id: str | None = "task-1", *tracks: Track, track_ids: tuple[str, ...] = ()) -> Record:
    """Return the record of a job with *task_id* and *tracks*."""
    asked = Asked(provider="here", account="here", request=Extend.draft(audio_id="x"))
    answer = None if task_id is None else Submitted(task_id=task_id, track_ids=track_ids)
    return Record(ref="ref1", asked=asked, created_at=1.0, task_id=task_id, tracks=tracks, answer=answer)


WIRE_WORDS = (
    *("code", "data", "msg", "task_id", "taskId", "callbackType", "status", "state", "response", "sunoData"),
    *("resultJson", "resultUrls", "resultObject", "complete", "first", "text", "error", "SUCCESS", "fail"),
    *("conversion", "conversion_id_1", "conversion_path", "conversion_path_1", "files", "finished"),
    *("audio_url", "audioUrl", "id", "duration", "createTime", "lyrics_timestamped", "image_path", "detail"),
    *("success", "conversion_id", "eta", "credit_estimate", "audio_id", "error_message", "is_flagged"),
)


def json_values() -> st.SearchStrategy[object]:
    """Return any JSON value, with keys and words of the wire among its texts."""
    texts = st.one_of(st.sampled_from(WIRE_WORDS), st.text(max_size=8))
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**62), 2**62),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=5)),
        max_leaves=12,
    )


class Kit:
    """The helpers above and every sample, for tests to use as one fixture.

    It is not an attrs class, since Hypothesis would print all of its samples under a failing test.
    """

    summary = staticmethod(summary)
    make_request = staticmethod(make_request)
    make_record = staticmethod(make_record)
    json_values = staticmethod(json_values)
    field_values = FIELD_VALUES
    least_fields = LEAST_FIELDS

    def __init__(self, samples: tuple[Sample, ...]) -> None:
        """Keep every provider's *samples*."""
        self.samples = samples

    def samples_of(self, provider: str) -> tuple[Sample, ...]:
        """Return the samples of one provider."""
        return tuple(sample for sample in self.samples if sample.provider == provider)


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Return the helpers of this folder."""
    return Kit(tuple(load_samples()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each provider if it has the argument `provider_class`."""
    if "provider_class" in metafunc.fixturenames:
        metafunc.parametrize("provider_class", [load(name) for name in NAMES], ids=NAMES)
