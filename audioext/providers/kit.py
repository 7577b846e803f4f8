"""The building blocks of your own provider; `examples/custom_provider.py` shows how to use them."""

from __future__ import annotations

from audioext.providers._account import HostedAccount, Vendor
from audioext.providers._answers import Code, CodeTable
from audioext.providers._fields import FieldRules

__all__ = ["Code", "CodeTable", "FieldRules", "HostedAccount", "Vendor"]
