"""Settings are checked before any I/O, and each error says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from yarl import URL

import audioext as ax
from audioext import config as settings
from audioext.http.urls import callback_url
from audioext.settings import read_settings
from tests.support.api import callback
from tests.support.tables import each_row


def test_a_client_needs_no_loop_and_does_no_io() -> None:
    """A client can be constructed outside of any loop, with handlers and a receiver."""
    client = ax.Client(ax.Kie("key"), public_url="https://hooks.test/audio", store="memory://")

    assert URL("https://hooks.test/audio") == client.public_url
    assert client.receiver is not None


def test_a_client_shows_its_clock() -> None:
    """`client.clock` is the clock that was given, else the system's; it dates the client's jobs."""
    clock = ax.Clock(now=lambda: 1.0)

    assert [clock, ax.Clock()] == [ax.Client(clock=clock).clock, ax.Client().clock]


def test_an_address_that_is_set_and_not_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Kie()` is refused if the environment has a base URL that it would ignore: a sandbox user must not be charged."""
    monkeypatch.setenv("KIE_BASE_URL", "http://127.0.0.1:8099/kie")
    monkeypatch.setenv("KIE_API_KEY", "key")
    ax.Client.from_env()
    ax.Client(ax.Kie(base_url="http://127.0.0.1:1"), ax.Vidgo("key"))
    ax.Client(ax.Kie(base_url="https://api.kie.ai"))  # an explicit default is accepted

    advice = "use Client.from_env() without a provider, pass `base_url=`, or unset KIE_BASE_URL"
    for make in (ax.Client, ax.Client.from_env):
        with pytest.raises(ax.ConfigError) as caught:
            make(ax.KieJobs())
        assert f"KIE_BASE_URL is set, but kie-jobs would go to https://api.kie.ai: {advice}" == str(caught.value)
    monkeypatch.setenv("KIE_BASE_URL", "https://api.kie.ai/")
    assert "<Client kie, new>" == repr(ax.Client(ax.Kie()))


def test_a_misspelt_setting_is_a_type_error() -> None:
    """An unknown argument raises a TypeError when the client is made."""
    with pytest.raises(TypeError, match=r"Client has no option publicurl; did you mean public_url\?"):
        ax.Client(publicurl=None)  # type: ignore[call-arg]  # wrong on purpose


@each_row(
    "make",
    [
        lambda long: ax.Client(store=long),
        lambda long: ax.Client(store=f"sqlite:///a?{long}"),
        lambda long: ax.Client(store=f"redis://h/0?prefix={{{long}}}"),
        lambda long: ax.Client(store=f"redis://h/0?patience={long}"),
        lambda long: ax.Client(store=f"redis://h/0?{long}=1"),
        lambda long: ax.Client(ax.Vidgo("key"), public_url=f"http://hooks.example.org/{long}"),
        lambda long: ax.Client().on(ax.Stage.TEXT, meta=type(long, (), {})()),
        lambda long: ax.Client.from_env(file=long),
        lambda long: ax.Client.from_env(file=Path().joinpath(*[long[:60]] * 40)),
        lambda long: read_settings({"KIE_API_KEY_FILE": long}),
    ],
)
def test_no_message_about_a_setting_repeats_a_long_value(make: Callable[[str], object]) -> None:
    """The error about a setting cuts a long value, a path too."""
    with pytest.raises(ax.ConfigError) as refused:
        make("x" * 5_000)

    assert len(str(refused.value)) < 350


async def test_no_message_about_a_store_repeats_a_long_path(tmp_path: Path) -> None:
    """An error about a SQLite file or about the host of a Redis server cuts a long path or name."""
    deep = tmp_path.joinpath(*["x" * 60] * 30)
    deep.mkdir(parents=True)
    (deep / "a.db").write_text("no database" * 500)
    (deep / "b.db").symlink_to("a.db")
    stores = [f"sqlite:////{deep}{name}" for name in ("", "/a.db", "/b.db", "/no/c.db")]
    for store in (*stores, f"redis://{'.'.join(['x' * 60] * 4)}.invalid/0?patience=0.1"):
        with pytest.raises(ax.StoreError) as refused:
            await ax.Client(store=store).open()
        assert len(str(refused.value)) < 350


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"public_url": "hooks.test"}, "`public_url=` must look like"),
        ({"public_url": "https://hooks test"}, "`public_url=` must look like"),
        ({"public_url": "https://hooks.test/a?b=c"}, "`public_url=` must look like"),
        ({"public_url": "http://x.test:{port}/a", "listen": None}, "listen="),
        ({"listen": "nowhere"}, "`listen=` must look like"),
        ({"listen": "127.0.0.1:99999"}, "`listen=` must look like"),
        ({"listen": f"127.0.0.1:{'9' * 5_000}"}, "`listen=` must look like"),
        ({"wait_timeout": 0}, "wait_timeout"),
        ({"expire_after": float("nan")}, "expire_after"),
        ({"secrets": ["short"]}, "at least 16 bytes"),
        ({"secrets": "one-text-instead-of-a-list"}, "newest first"),
        ({"secrets": [32]}, "secrets must be a list of texts or bytes"),
        ({"secrets": None}, "secrets must be a list of texts or bytes"),
        ({"allow_hosts": None}, "None is not a host"),
        ({"allow_hosts": 5}, "5 is not a host"),
        ({"handler_concurrency": 0}, "handler_concurrency must be a whole number from 1 on, not 0"),
        ({"handler_concurrency": "16"}, "handler_concurrency"),
        ({"handler_concurrency": True}, "handler_concurrency"),
        ({"deliveries_kept": -1}, "deliveries_kept must be a whole number from 0 on, not -1"),
        ({"deliveries_kept": 1.5}, "deliveries_kept"),
        ({"serve_files": "no"}, "serve_files must be True or False, not 'no'"),
        ({"trust_env": "0"}, "trust_env must be True or False"),
        ({"clock": 5}, r"clock must be an audioext.Clock\(...\), not 5"),
        ({"store": "postgres://x"}, "is not known"),
        ({"store": ax.MemoryStore}, "MemoryStore'> is not a store"),
        ({"store": "sqlite://jobs.db"}, "three slashes"),
        ({"store": "sqlite:///jobs.db?synchronous=off"}, "synchronous"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments: dict[str, object], says: str) -> None:
    """The error for a setting that cannot work names it."""
    with pytest.raises(ax.ConfigError, match=says):
        ax.Client(ax.Kie("key"), **arguments)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("name", ["now", "jitter", "monotonic", "sleep"])
def test_a_clock_is_made_of_functions(name: str) -> None:
    """A clock whose part is no function is refused when it is made, not when a job is awaited."""
    with pytest.raises(TypeError, match=f"'{name}' must be callable"):
        ax.Clock(**{name: 5})  # type: ignore[arg-type]  # wrong on purpose


def test_a_secret_may_be_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is not UTF-8 in the environment, which Python reads as surrogates, is taken."""
    monkeypatch.setenv("AUDIOEXT_SECRETS", "\udcff" * 16)
    assert "<Client kie, new>" == repr(ax.Client.from_env(ax.Kie("key")))


def test_whitespace_around_an_address_is_stripped() -> None:
    """Whitespace around an address, as from pasting, is stripped; whitespace inside it is refused."""
    client = ax.Client(public_url=" https://hooks.test/a ", listen=None)
    assert "https://hooks.test/a" == str(client.public_url)
    assert "https://api.test/kie" == str(ax.Kie("key", base_url=" https://api.test/kie/ \n").base_url)
    with pytest.raises(ax.ConfigError, match="`base_url=` must be like"):
        ax.Kie("key", base_url="https://api .test")


NO_NUMBERS = (float("nan"), float("inf"), float("-inf"), -1, True, "5", [5])


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", ["first", "every", "slowest", "backoff", "quiet"])
def test_the_times_of_a_pace_must_be_finite(name: str, value: object) -> None:
    """Each time of a pace must be a finite number, so that polls come, but not without a pause."""
    with pytest.raises(ax.ConfigError, match=f"{name} must be a finite number from [01] on"):
        ax.Pace(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
    assert 0 == ax.Pace(first=0).first


def test_a_brisk_pace_is_brisk_from_the_start() -> None:
    """A pace with `every` below 15 s polls that soon for the first time too (newcomer A)."""
    assert [15.0, 1, 20, 15.0] == [
        pace.first for pace in (ax.Pace(), ax.Pace(every=1), ax.Pace(every=1, first=20), ax.Pace(every=30))
    ]


@pytest.mark.parametrize("value", [0, *NO_NUMBERS])
@pytest.mark.parametrize("name", ["submits", "per", "parallel", "queries", "queries_per"])
def test_limits_are_numbers_that_let_something_through(name: str, value: object) -> None:
    """Limits must be positive finite numbers, so that each submit gets its turn."""
    with pytest.raises(ax.ConfigError, match=name):
        ax.Limits(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
    assert (None, None) == (ax.Limits(queries=None).queries, ax.Limits().submits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limits", each) for each in (None, 5, {"submits": 5})),
        *(("pace", each) for each in (None, 5, 0.1)),
        *(("grace", each) for each in (None, 0, *NO_NUMBERS)),
        *(("retention", each) for each in (0, *NO_NUMBERS)),
        *(("webhook_tolerance", each) for each in (None, 0, *NO_NUMBERS)),
    ],
)
def test_a_providers_settings_are_checked(name: str, value: object) -> None:
    """A provider's wrong setting is named when the provider is made, not during a submit."""
    with pytest.raises(ax.ConfigError, match=f"{name} must be"):
        ax.Kie("key", **{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_two_accounts_need_two_names() -> None:
    """Two providers with one name are refused, and accepted with `name=`."""
    with pytest.raises(ax.ConfigError, match="name="):
        ax.Client(ax.Kie("one"), ax.Kie("two"))
    ax.Client(ax.Kie("one"), ax.Kie("two", name="kie-two"))
    with pytest.raises(ax.ConfigError, match="instance"):
        ax.Client(ax.Kie)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ax.ConfigError, match="files"):
        ax.Client(ax.Kie("key", name="files"))


@pytest.mark.parametrize(
    "public_url",
    ["http://hooks.example.org", "https://127.0.0.1/a", "https://10.1.2.3", f"https://hooks.example.org/{'a' * 2048}"],
)
def test_vidgo_refuses_a_public_url_it_would_never_call(public_url: str) -> None:
    """http, private hosts and overlong URLs are refused when the client is made."""
    with pytest.raises(ax.ConfigError, match="never call"):
        ax.Client(ax.Vidgo("key"), public_url=public_url)


def test_vidgo_on_loopback_may_call_loopback() -> None:
    """A provider whose own base URL is loopback accepts any public URL."""
    ax.Client(ax.Vidgo("key", base_url="http://127.0.0.1:9/vidgo"), public_url="http://127.0.0.1:8080/a")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":80", ("0.0.0.0", 80)),  # noqa: S104 - what the colon asks for
        ("[::1]:0", ("::1", 0)),
        (9000, ("127.0.0.1", 9000)),
        (None, None),
    ],
)
def test_listen_addresses(listen: str | int | None, address: tuple[str, int] | None) -> None:
    """`listen` takes host and port, a port alone, IPv6 in brackets, or None."""
    assert address == settings.read_listen(listen, None)


def test_listen_follows_public_url() -> None:
    """By default a client with a public URL listens on 127.0.0.1:8080, and one without does not listen."""
    assert ("127.0.0.1", 8080) == settings.read_listen(UNSET, URL("https://x.test"))
    assert settings.read_listen(UNSET, None) is None


async def test_a_taken_address_is_an_error(unused_tcp_port: int) -> None:
    """A second client on one address raises an error that says to choose another, and leaks nothing."""
    url, listen = "https://hooks.test", f"127.0.0.1:{unused_tcp_port}"
    async with ax.Client(ax.Kie("key"), public_url=url, listen=listen):
        with pytest.raises(ax.ConfigError, match=rf"^cannot listen on {listen}: [^:']+; choose"):
            async with ax.Client(ax.Kie("key"), public_url=url, listen=listen):
                pass


@pytest.mark.parametrize("host", ["x" * 300, "\ud800", "127.0.0.1\0"])
@pytest.mark.parametrize("name", ["listen", "metrics"])
async def test_a_host_that_no_name_can_be_is_told(name: str, host: str) -> None:
    """A host that the system cannot even look up raises an error of ours when the client is opened."""
    client = ax.Client(ax.Kie("key"), **{name: f"{host}:0"})  # type: ignore[arg-type]  # a name from a table
    with pytest.raises(ax.ConfigError, match=r"cannot listen on .{1,90}: this machine has no such address"):
        await client.open()


async def test_a_client_is_opened_once() -> None:
    """Opening a client again is refused, while it is open and after it was closed."""
    client = ax.Client(ax.Kie("key"))
    async with client:
        with pytest.raises(ax.ConfigError, match="opened once"):
            await client.__aenter__()
    with pytest.raises(ax.ConfigError, match="opened once"):
        await client.__aenter__()


@pytest.mark.parametrize(
    ("key", "meta", "field"), [("", None, "key"), ("k" * 513, None, "key"), (None, {"a": object()}, "meta")]
)
async def test_a_key_and_meta_are_checked(key: str | None, meta: dict[str, object] | None, field: str) -> None:
    """An empty or overlong key and meta that is not JSON are problems of the request."""
    async with ax.Client(ax.Kie("key")) as client:
        with pytest.raises(ax.RequestError) as caught:
            await client.extend(audio_id="a", model="V5", key=key, meta=meta)

    assert [field] == [problem.field for problem in caught.value.problems]


async def test_a_wrong_argument_of_a_lookup_is_refused() -> None:
    """A wrong argument of a lookup raises its own error, not a StoreError."""
    async with ax.Client(ax.Kie("key")) as client:
        with pytest.raises(ax.RequestError, match="open: must be True or False, not 'yes'"):
            [job async for job in client.jobs(open="yes")]  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(ax.RequestError, match="holds no delivery None"):
            await client.delivery(None)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(ax.RequestError, match=r"meta: must be a mapping like .*, not 'chat'"):
            [job async for job in client.jobs(meta="chat")]  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(ax.RequestError, match=r"job: must be a job, as client\.job\(ref\) returns it, not 'ref'"):
            client.progress_url("ref")  # type: ignore[arg-type]  # wrong on purpose


async def awaited(*_: object) -> None:
    """Be a coroutine function, which cannot be a progress callback."""


@pytest.mark.parametrize("progress", [5, awaited])
async def test_a_progress_that_is_not_a_function_is_refused(progress: Any) -> None:
    """A `progress` that is not a plain function is refused before anything is uploaded or downloaded."""
    song = ax.Song(ref="r", provider="kie", task_id=None, tracks=())
    async with ax.Client(ax.Kie("key")) as client:
        for call in (client.extend(audio_id="a", model="V5", progress=progress), song.save(progress=progress)):
            with pytest.raises(ax.RequestError, match=r"progress: must be a plain function"):
                await call


@pytest.mark.parametrize("arguments", [{"folder": None}, {"folder": b"out"}, {"folder": 5}, {"overwrite": "no"}])
async def test_wrong_arguments_of_save_are_refused(arguments: dict[str, Any]) -> None:
    """A `folder` that is not a path, or an `overwrite` that is not a bool, such as "no", is refused."""
    song = ax.Song(ref="r", provider="kie", task_id=None, tracks=())
    with pytest.raises(ax.RequestError, match=f"{next(iter(arguments))}: must be"):
        await song.save(**arguments)


async def test_an_unknown_provider_is_an_error_that_names_the_known_ones() -> None:
    """The error for an unknown provider names the known ones."""
    async with ax.Client(ax.Kie("key")) as client:
        with pytest.raises(ax.ConfigError, match="it has kie"):
            await client.extend(audio_id="a", model="V5", provider="vidgo")
    async with ax.Client() as client:
        keys = "KIE_API_KEY, SUNOAPI_API_KEY, VIDGO_API_KEY, MUSICGPT_API_KEY"
        request = ax.Extend(audio_id="a", model="V5")
        for call in (lambda: client.submit(request), lambda: client.run(request), client.credits):
            with pytest.raises(ax.ConfigError, match=rf"no provider: .*, or set its key for from_env\(\): {keys}"):
                await call()


# --- secrets and keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", ["sometimes", "", None, True, "Always"])
def test_confirm_has_three_values(confirm: object) -> None:
    """A wrong `confirm` is refused with the three allowed values, since a typo must not weaken the check."""
    with pytest.raises(ax.ConfigError, match='"never", "unsigned" or "always"'):
        ax.Client(ax.Kie("key"), confirm=confirm)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "arguments",
    [
        {"public_url": "https://me:hunter2@hooks.test/a?b=c"},
        {"public_url": "me:hunter2@hooks.test"},
        {"public_url": "ftp://me:hun@ter2@hooks.test"},
        {"public_url": "http://me:hunter2@10.0.0.1/a"},
        {"store": "sqlite://me:hunter2@host/jobs.db"},
        {"store": "sqlite:///jobs.db?password=hunter2"},
        {"store": "postgres://me:hunter2@host"},
        {"store": "redis://me:hunter2\u2100@host"},
        {"store": "redis://[me:hunter2@host"},
        {"store": "redis://me:hunter2@host:port"},
        {"store": "redis://me:hunter2@host/0?colour=red"},
        {"store": "redis://me@host/0?password=hunter2&prefix={}"},
    ],
)
def test_no_message_repeats_a_password(arguments: dict[str, object]) -> None:
    """The error for a wrong URL does not repeat its password."""
    with pytest.raises(ax.ConfigError) as caught:
        ax.Client(ax.Vidgo("key"), **arguments)  # type: ignore[arg-type]  # as above
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_kies_webhook_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kie reads one or several webhook keys from the environment, unless keys are given."""
    monkeypatch.setenv("KIE_WEBHOOK_KEY", " new  old ")

    both = settings.named([ax.Kie("a"), ax.KieJobs("a", webhook_key="mine"), ax.SunoApi("a")], os.environ)

    assert [True, True, False] == [provider.info.is_signed for provider in both.values()]
    assert ax.Kie("a", webhook_key=["new", "old"]) == both["kie"]
    assert ax.KieJobs("a", webhook_key="mine") == both["kie-jobs"]


async def test_a_listener_without_providers_checks_kies_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without providers refuses an unsigned kie.ai webhook if the environment has the webhook key."""
    secret = b"0123456789abcdef-secret"
    path = callback_url(URL("https://hooks.test"), secret, "kie", "r" * 24).path
    hook = ax.Webhook(path=path, body=json.dumps(callback("text")).encode())
    statuses: list[int] = []
    for key in ("", "hmac"):
        monkeypatch.setenv("KIE_WEBHOOK_KEY", key)
        async with ax.Client(public_url="https://hooks.test", listen=None, secrets=[secret]) as client:
            statuses.append(await client.inbox.accept(hook))

    assert [200, 401] == statuses


@pytest.mark.parametrize(
    ("base_url", "is_public"),
    [
        ("http://api.kie.ai", True),
        ("http://8.8.8.8:80/x", True),
        ("https://api.kie.ai", False),
        ("http://127.0.0.1:8000", False),
        ("http://[::1]:8000", False),
        ("http://10.1.2.3", False),
        ("http://sandbox:8000", False),
        ("http://kie.localhost", False),
        ("http://kie.internal", False),
    ],
)
def test_a_key_that_goes_out_in_clear_text_is_warned_of(
    base_url: str, is_public: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An API key for a plain http base URL gives a warning, unless the host is loopback or private."""
    ax.Client(ax.Kie("key", base_url=base_url))
    assert is_public is ("clear text" in caplog.text)
    assert "key" not in caplog.text.replace("the API key goes", "")
    caplog.clear()
    ax.Client(ax.Kie(base_url=base_url))
    assert "" == caplog.text
