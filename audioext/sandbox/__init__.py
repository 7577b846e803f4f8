"""A local stand-in for the four APIs: the server side of their wire formats, real audio, faults on demand.

Importing this package needs neither numpy nor soundfile; starting a `Sandbox` does.
"""

from __future__ import annotations

from audioext.sandbox.faults import Fault, FaultError, FaultKind
from audioext.sandbox.library import MissingExtraError
from audioext.sandbox.models import CallbackAttempt, Submission, Task, TaskStage
from audioext.sandbox.server import Sandbox
from audioext.sandbox.settings import SandboxSettings

__all__ = [
    "CallbackAttempt",
    "Fault",
    "FaultError",
    "FaultKind",
    "MissingExtraError",
    "Sandbox",
    "SandboxSettings",
    "Submission",
    "Task",
    "TaskStage",
]
