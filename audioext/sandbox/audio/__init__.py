"""Real audio for the sandbox: reads and writes files, makes music, continues a source and accompanies it."""

from __future__ import annotations

from audioext.sandbox.audio.codec import FORMATS_READ, AudioError, Clip, Samples, encode, load, resample
from audioext.sandbox.audio.music import JOINT_SECONDS, SOURCE_GAIN, accompany, extend, tune, voice

__all__ = [
    "FORMATS_READ",
    "JOINT_SECONDS",
    "SOURCE_GAIN",
    "AudioError",
    "Clip",
    "Samples",
    "accompany",
    "encode",
    "extend",
    "load",
    "resample",
    "tune",
    "voice",
]
