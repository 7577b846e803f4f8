"""The building blocks of your own provider; `examples/custom_provider.py` shows how to use them.

Your provider may need what the example does not:

- Signed webhooks: override `is_signed` and `verify_webhook`, which raises `WebhookError(..., http_status=401)`. Name
  the headers that it reads in the `Vendor`'s `signature_headers`, so that they are stored; `is_one_of` compares in
  constant time.
- No word for the end, such as a webhook for each track: `counts_tracks=True`. Every `Track` then needs its `id`.
- A status call that lists tasks: ask for one, since an answer that names another task as well counts for nothing.
- Answers in an envelope, or with codes of their own: `table=CodeTable(...)`; `self.answers` reads them.
- A file host, a recovery of files, a balance: the methods of `Uploads`, `Recovers`, `Credits` in `providers/base.py`.
"""

from __future__ import annotations

from audioext.http.decoding import decode
from audioext.http.signing import hmac_base64, is_one_of
from audioext.models.events import Event, Failed, Progress, Refused, SubmitOutcome, Submitted, Unknown
from audioext.providers._account import HostedAccount, Vendor
from audioext.providers._answers import Code, CodeTable
from audioext.providers._fields import FieldRules

__all__ = [
    "Code",
    "CodeTable",
    "Event",
    "Failed",
    "FieldRules",
    "HostedAccount",
    "Progress",
    "Refused",
    "SubmitOutcome",
    "Submitted",
    "Unknown",
    "Vendor",
    "decode",
    "hmac_base64",
    "is_one_of",
]
