"""The hosted APIs: each module is one wire format, and none knows another."""

from __future__ import annotations

from audioext.providers.kie import Kie
from audioext.providers.kie_jobs import KieJobs
from audioext.providers.musicgpt import MusicGpt
from audioext.providers.sunoapi import SunoApi
from audioext.providers.vidgo import Vidgo

ALL = (Kie, KieJobs, SunoApi, Vidgo, MusicGpt)
"""Every provider, in the order in which messages name them."""

__all__ = ["ALL", "Kie", "KieJobs", "MusicGpt", "SunoApi", "Vidgo"]
