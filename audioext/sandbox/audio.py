"""Real audio for the sandbox: reads and writes files, makes music, carries it on and plays along with it."""

from __future__ import annotations

from audioext.sandbox._accompany import SOURCE_GAIN, accompany
from audioext.sandbox._codec import FORMATS_READ, AudioError, Clip, encode, load
from audioext.sandbox._extend import JOINT_SECONDS, extend
from audioext.sandbox._tunes import tune, voice

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
