"""The mask hides every callback tag and every file's token, whatever the public URL and wherever the path appears."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from audioext.errors import WebhookError
from audioext.http.urls import callback_url, mask, read_callback, without_password

REF = "1mcc5rm00jqt2pvthp7tb0ar"
SEGMENTS = st.one_of(
    st.sampled_from(["api", "webhooks", "callbacks", "files", "v1", "kie", "musicgpt", "production"]),
    st.text("abcXYZ019-_.~", min_size=1, max_size=70),
)
PREFIXES = st.lists(SEGMENTS, max_size=5).map(lambda parts: "".join(f"/{part}" for part in parts))
PROVIDERS = st.sampled_from(["kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt", "my-second-account"])
SECRETS = st.binary(min_size=32, max_size=32)
BEFORE = st.sampled_from(["", "POST ", '"', "a delivery to https://hooks.me.dev", "path=", "(", "/healthz "])
AFTER = st.sampled_from(["", "/", "?a=1", "?next=/a/b/c", " HTTP/1.1", '" 200 17', "'", ")", ", then", "/extra", "//"])


@given(prefix=PREFIXES, provider=PROVIDERS, secret=SECRETS, before=BEFORE, after=AFTER)
@example(prefix="/api/webhooks", provider="kie", secret=b"s" * 32, before="", after="")
@example(prefix="/v1/callbacks", provider="kie", secret=b"s" * 32, before="", after="?a=1")
@example(prefix="/files", provider="kie", secret=b"s" * 32, before="", after="")
def test_a_tag_is_hidden_behind_any_prefix(prefix: str, provider: str, secret: bytes, before: str, after: str) -> None:
    """The tag of a callback URL is hidden in a path, with a query, and inside other text, and nothing else is."""
    url = callback_url(URL(f"https://hooks.me.dev{prefix}"), secret, provider, REF)
    text = f"{before}{url.raw_path}{after}"

    assert text.replace(url.name, "***") == mask(text)


@given(prefix=PREFIXES, provider=PROVIDERS, secret=SECRETS)
def test_a_tag_is_hidden_in_json_that_escapes_its_slashes(prefix: str, provider: str, secret: bytes) -> None:
    r"""A tag is hidden in JSON that escapes its slashes, as in `https:\/\/…`."""
    url = callback_url(URL(f"https://hooks.me.dev{prefix}"), secret, provider, REF)
    text = '{"callBackUrl":"' + str(url).replace("/", "\\/") + '"}'

    assert text.replace(url.name, "***") == mask(text)


SLASHES = ["%2F", "%2f", "%252F", "%25252f", "\\", r"\\", "%5C", "%255c"]


@given(prefix=PREFIXES, secret=SECRETS, slash=st.sampled_from(SLASHES))
def test_a_tag_is_hidden_where_slashes_are_encoded(prefix: str, secret: bytes, slash: str) -> None:
    """A tag is hidden after percent-encoded slashes, since a receiver accepts such a path and logs it as it came."""
    url = callback_url(URL(f"https://hooks.me.dev{prefix}"), secret, "kie", REF)

    assert url.name not in mask(f"POST /{url.raw_path[1:].replace('/', slash)} HTTP/1.1")
    assert url.name not in mask(f"POST {url.raw_path.replace(f'/{url.name}', slash + url.name)} HTTP/1.1")


@given(secret=SECRETS, query=st.sampled_from(["?tag={}", "?a=1&tag={}&b=2", "/?key={}"]))
def test_a_tag_is_hidden_in_a_query(secret: bytes, query: str) -> None:
    """A tag in a query is hidden as well, although it is not accepted there."""
    url = callback_url(URL("https://hooks.me.dev"), secret, "kie", REF)

    assert f"/kie/{REF}{query.format('***')}" == mask(f"/kie/{REF}{query.format(url.name)}")


@pytest.mark.parametrize(
    "part", ["aaaaaaaa%2f", "files%2F", "%252F", "%25", "=", "a/", "files/", "0" * 24 + "/", "/", "\\"]
)
@pytest.mark.parametrize("end", ["", "/x", "/a/b/c", '"', "%2F" + "a" * 43])
def test_the_mask_takes_no_longer_for_hostile_texts(part: str, end: str) -> None:
    """A hundred kilobytes of hostile text are masked within half a second of processor time."""
    began = time.process_time()
    mask(part * (100_000 // len(part)) + end)

    assert time.process_time() - began < 0.5  # a twentieth of that on an idle machine


@given(prefix=PREFIXES, token=st.text("abcXYZ019-_", min_size=43, max_size=43), after=AFTER)
def test_the_token_of_an_offered_file_is_hidden_behind_any_prefix(prefix: str, token: str, after: str) -> None:
    """The token in the URL of an offered file is hidden, and the file's name is shown."""
    masked = mask(f"GET {prefix}/files/{token}/rain.wav{after}")

    assert f"/files/{token}" not in masked
    assert "rain.wav" in masked


@given(
    prefix=PREFIXES,
    ref=st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=8, max_size=64),
    tag=st.text("abcXYZ019-_.~%", min_size=1, max_size=128),
    slash=st.sampled_from(["", "/", ";v=1", ";v=1/"]),
)
def test_the_last_segment_of_any_callback_path_is_hidden(prefix: str, ref: str, tag: str, slash: str) -> None:
    """The last segment of anything that parses as a callback path is hidden, whatever its shape."""
    path = f"{prefix}/kie/{ref}/{tag}{slash}"
    with suppress(WebhookError):
        assert tag == read_callback(path).tag

    assert mask(path).endswith(f"/{ref}/***{slash}")


@pytest.mark.parametrize(
    "text", ["/healthz", "/audio/kie", "/audio/kie/" + REF, "no path at all", "", "/", "https://cdn.test/a/b.mp3"]
)
def test_a_path_without_a_secret_is_left_as_it_is(text: str) -> None:
    """A ref, and any other path than a callback path, is left as it is."""
    assert text == mask(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://me:secret@db/0 and redis://db", "redis://***@db/0 and redis://db"),
        ("https://me:se/cr@et@host//x", "https://***@host//x"),
        ("https://me:secretpassword=x@host/", "https://***@host/"),
        ("me:secret@host", "***@host"),
        ("unix:///x?password=secret&db=1", "unix:///x?password=***&db=1"),
        ("write to me@example.com", "write to me@example.com"),
        pytest.param("//" * 1_000_000, "//" * 1_000_000, id="many slashes"),
    ],
)
def test_the_password_of_a_url_is_hidden(text: str, shown: str) -> None:
    """User name and password in a URL are hidden, and long text takes no longer than other text."""
    assert shown == without_password(text)
