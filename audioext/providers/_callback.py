"""The documented callback of kie.ai and sunoapi.org, read in one pass: what most webhooks are.

docs.kie.ai/suno-api/extend-music-callbacks and docs.sunoapi.org/suno-api/extend-music-callbacks, read 2026-11-21.
"""

from __future__ import annotations

import msgspec
from attrs import define

from audioext.http.decoding import MAX_ID_LENGTH, are_plain_links, link, moment
from audioext.models.events import Progress
from audioext.models.results import Stage, Track

OK = 200
MAX_PLAIN_TRACKS = 8  # real callbacks show 1 or 2
_STAGES = {"text": Stage.TEXT, "first": Stage.FIRST, "complete": Stage.COMPLETE}


@define
class _Song:
    """One track; `createTime` is documented as a text and arrives as epoch milliseconds."""

    id: str
    audio_url: str | None = None
    stream_audio_url: str | None = None
    image_url: str | None = None
    source_audio_url: str | None = None
    source_stream_audio_url: str | None = None
    source_image_url: str | None = None
    prompt: str | None = None
    model_name: str | None = None
    title: str | None = None
    tags: str | None = None
    createTime: str | int | float | None = None  # noqa: N815 - the wire's spelling
    duration: float | None = None

    def track(self) -> Track:
        links = [self.audio_url, self.stream_audio_url, self.image_url]
        links += self.source_audio_url, self.source_stream_audio_url, self.source_image_url
        # One look at all of them together is faster than one at each.
        if not are_plain_links(" ".join([value or "" for value in links])):
            links = [link(value) for value in links]
        audio, stream, image, source_audio, source_stream, source_image = links
        return Track(
            id=self.id,
            title=self.title,
            audio_url=audio,
            stream_url=stream,
            image_url=image,
            duration=self.duration if self.duration is not None and self.duration > 0 else None,
            tags=self.tags,
            prompt=self.prompt,
            model_name=self.model_name,
            source_audio_url=source_audio,
            source_stream_url=source_stream,
            source_image_url=source_image,
            created_at=moment(self.createTime),
        )


@define
class _Data:
    callbackType: str  # noqa: N815 - the wire's spelling
    task_id: str
    data: list[_Song]
    taskId: str | None = None  # noqa: N815 - the wire's spelling


@define
class _Callback:
    code: int
    data: _Data
    taskId: str | None = None  # noqa: N815 - the wire's spelling
    task_id: str | None = None


_CALLBACKS = msgspec.json.Decoder(_Callback)


def plain_callback(body: bytes) -> Progress | None:
    """Return what a callback means that is exactly as documented and shows usable tracks; else `None`."""
    try:
        callback = _CALLBACKS.decode(body)
    except (ValueError, RecursionError):
        return None
    data = callback.data
    stage = _STAGES.get(data.callbackType)
    if callback.code != OK or stage is None or data.taskId or callback.taskId or callback.task_id:
        return None
    if not (0 < len(data.data) <= MAX_PLAIN_TRACKS and _is_id(data.task_id)):
        return None
    tracks = tuple([song.track() for song in data.data])
    for track in tracks:
        usable = track.audio_url or (stage is Stage.TEXT and track.stream_url)
        if not usable or not _is_id(track.id or ""):
            return None
    return Progress(task_id=data.task_id, claimed_stage=stage, tracks=tracks)


def _is_id(value: str) -> bool:
    return 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()
