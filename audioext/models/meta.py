"""What users note down with a submit, and get back with its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field
from typing import Any, ClassVar, Protocol

import attrs
import msgspec


class DataclassObject(Protocol):
    """An object of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Meta = Mapping[str, object] | DataclassObject | attrs.AttrsInstance | msgspec.Struct
"""JSON of yours, as a dict or as an object whose fields are JSON."""
