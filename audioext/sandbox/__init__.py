"""The four APIs on this machine: their wire formats from the other side, real audio, faults on demand.

Importing this package needs neither numpy nor soundfile; starting a `Sandbox` does.
"""

from .faults import Fault, FaultError, FaultKind
from .library import MissingExtraError
from .server import Sandbox
from .settings import Settings
from .tasks import Delivery, Stage, Submission, Task

__all__ = [
    "Delivery",
    "Fault",
    "FaultError",
    "FaultKind",
    "MissingExtraError",
    "Sandbox",
    "Settings",
    "Stage",
    "Submission",
    "Task",
]
