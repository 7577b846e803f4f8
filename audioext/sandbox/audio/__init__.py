"""Real audio for the sandbox: reads and writes files, makes music, continues a source and accompanies it."""

from __future__ import annotations

from audioext.sandbox.audio.codec import FORMATS_READ, AudioError, Clip, encode, load
from audioext.sandbox.audio.results import JOINT_SECONDS, SOURCE_GAIN, accompany, extend
from audioext.sandbox.audio.tune import tune, voice

__all__ = [
    "FORMATS_READ",
    "JOINT_SECONDS",
    "SOURCE_GAIN",
    "AudioError",
    "Clip",
    "accompany",
    "encode",
    "extend",
    "load",
    "tune",
    "voice",
]
