"""What there is, and where: nothing here is imported before it is used."""

from __future__ import annotations

NAMES = ("kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt")
"""The five wire formats, in the order in which messages name them."""

CLASSES = {
    "kie": ("audioext.providers.kie", "Kie"),
    "kie-jobs": ("audioext.providers.kie_jobs", "KieJobs"),
    "sunoapi": ("audioext.providers.sunoapi", "SunoApi"),
    "vidgo": ("audioext.providers.vidgo", "Vidgo"),
    "musicgpt": ("audioext.providers.musicgpt", "MusicGpt"),
}
