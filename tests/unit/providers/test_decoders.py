"""The jobs of an account that only other processes have are decoded by its name, which begins with that of its API."""

from __future__ import annotations

import pytest

from audioext.providers import Decoders, format_of
from audioext.providers.kie import Kie, KieJobs
from tests.support import tape
from tests.support.tables import each_row


@each_row(
    "name, expected",
    [
        ("kie", "kie"),
        ("kie-acme", "kie"),
        ("kie-jobs", "kie-jobs"),
        ("kie-jobs-acme", "kie-jobs"),
        ("kie-jobsx", "kie"),
        ("kieacme", None),
        ("acme", None),
        ("", None),
    ],
)
def test_an_account_is_named_after_its_wire_format(name: str, expected: str | None) -> None:
    """The longest format's name that a name begins with counts, and a name of its own has none."""
    assert expected == format_of(name)


def test_the_decoder_of_an_account_has_its_apis_webhook_keys_and_no_api_key() -> None:
    """It verifies as its API's provider does, and cannot spend that one's money; it is made once."""
    decoders = Decoders(kie=Kie("key", webhook_key="secret"))
    decoders["kie-jobs"] = KieJobs()

    made = decoders["kie-acme"]

    assert ("kie-acme", False, True) == (made.info.name, made.info.has_key, made.info.is_signed)
    assert made is decoders["kie-acme"]
    assert KieJobs is type(decoders["kie-jobs-acme"])


def test_other_names_have_no_decoder() -> None:
    """A name of its own raises KeyError, and so does one after a provider of one's own."""
    decoders = Decoders(kie=tape.Tape(name="kie"))
    for name in ("acme", "kie-acme"):
        with pytest.raises(KeyError, match=name):
            decoders[name]
