"""What a provider of your own is built from; `examples/custom_provider.py` shows how."""

from __future__ import annotations

from audioext.providers._account import HostedAccount, Vendor
from audioext.providers._answers import Code, CodeTable
from audioext.providers._fields import FieldRules

__all__ = ["Code", "CodeTable", "FieldRules", "HostedAccount", "Vendor"]
