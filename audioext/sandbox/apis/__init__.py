"""The four APIs: one file for each, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from audioext.sandbox.apis import kie, musicgpt, sunoapi, vidgo
from audioext.sandbox.state import State

BUILDERS: Mapping[str, Callable[[State], web.Application]] = {
    "kie": kie.build,
    "sunoapi": sunoapi.build,
    "vidgo": vidgo.build,
    "musicgpt": musicgpt.build,
}
"""What makes each API's application, by its name in the sandbox's bases."""
