"""`Client.from_env()` takes arguments before variables before the file before defaults, and secrets from files."""

from __future__ import annotations

import inspect
import logging
import os
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from yarl import URL

import audioext as ax
from audioext.config import CODE_ONLY, ClientOptions, Settings, client_options, find_providers
from audioext.settings import NON_CLIENT_SETTINGS, SECRETS, read_settings

README = Path(__file__).parents[3] / "README.md"
KEY = "0123456789abcdef0123"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, without the environment settings of the user who runs the tests."""
    for name in {*SECRETS, *(f"AUDIOEXT_{each.upper()}" for each in get_type_hints(ClientOptions))}:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    for name in ("CONFIG", "PROVIDER", "BASE_URL", "LOG_FORMAT"):
        monkeypatch.delenv(f"AUDIOEXT_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file that only its owner can read, unless *mode* says otherwise."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_order_is_arguments_environment_file_defaults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments win over environment variables, those over the file, and the file over defaults."""
    write(
        folder / "audioext.toml",
        'public_url = "https://file.test"\nlisten = "127.0.0.1:1"\nconfirm = "always"\n[kie]\napi_key = "file"\n',
    )
    monkeypatch.setenv("AUDIOEXT_PUBLIC_URL", "https://environment.test")
    monkeypatch.setenv("AUDIOEXT_LISTEN", "127.0.0.1:2")
    found = read_settings({"AUDIOEXT_LISTEN": "127.0.0.1:2", "AUDIOEXT_STORE": " "})
    client = ax.Client.from_env(public_url="https://argument.test")

    assert {"public_url": "https://file.test", "confirm": "always"} == client_options(found)
    assert URL("https://argument.test") == client.public_url
    assert "always" == client.inbox.confirm
    assert "<Client kie, new>" == repr(client)
    assert URL("https://environment.test") == ax.Client.from_env().public_url


def test_every_setting_can_be_given_as_a_variable() -> None:
    """Every setting of a client has a variable of its argument's name, and numbers, booleans and lists are parsed."""
    kinds = get_type_hints(ClientOptions)
    texts = {bool: "yes", float: "2.5", int: "7"}
    settings = {f"AUDIOEXT_{name.upper()}": texts.get(kind, "none other") for name, kind in kinds.items()}
    options = client_options(settings)

    assert kinds.keys() <= inspect.signature(Settings).parameters.keys()
    assert kinds.keys() - CODE_ONLY == options.keys()
    assert (True, 2.5, 7, ["none", "other"], ["none", "other"]) == (
        options["trust_env"],
        options["keep"],
        options["deliveries_kept"],
        options["secrets"],
        options["allow_hosts"],
    )
    assert {"listen": None} == client_options({"AUDIOEXT_LISTEN": "none"})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("WAIT_TIMEOUT", "soon", r"wait_timeout \(AUDIOEXT_WAIT_TIMEOUT\) must be a number, not 'soon'"),
        ("SERVE_FILES", "maybe", "must be true or false, not 'maybe'"),
        ("CONFIRM", "sometimes", "confirm must be"),
        ("PROVIDER", "suno", "must be one of kie, "),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str) -> None:
    """The message names the setting and its allowed values."""
    monkeypatch.setenv(f"AUDIOEXT_{name}", text)
    with pytest.raises(ax.ConfigError, match=words):
        ax.Client.from_env()


def test_a_misspelt_variable_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown AUDIOEXT variable is a warning and no error, since it may belong to the user; known ones give none."""
    for name in ("WAITTIMEOUT", "STORE_FILE", "CONFIG", "LOG_FORMAT", "QQ", "KEEP"):
        monkeypatch.setenv(f"AUDIOEXT_{name}", " " if name in {"STORE_FILE", "CONFIG"} else "60")
    ax.Client.from_env()

    slip = "AUDIOEXT_WAITTIMEOUT is not a setting; did you mean AUDIOEXT_WAIT_TIMEOUT?"
    assert [slip, "AUDIOEXT_QQ is not a setting"] == caplog.messages
    caplog.clear()
    read_settings({"AUDIOEXT_MCP_TOKEN_FILE": str(write(Path("token"), "t"))})
    assert [] == caplog.messages


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('stor = "x"', "'stor' is not a setting; did you mean 'store'?"),
        ('[kie]\napikey = "x"', r"'kie.apikey' is not a setting; did you mean 'kie.api_key'\?"),
        ("[nobody]\nx = 1", "'nobody.x' is not a setting"),
        ("session = 1", "'session' is not a setting"),
        ("store = 2026-01-01", "must be text, a number"),
        ('secrets = ["with a blank"]', "without blanks"),
        ("store = ", "is not valid TOML"),
        ('store = "a"\nstore_file = "b"', "both AUDIOEXT_STORE and AUDIOEXT_STORE_FILE are set"),
    ],
)
def test_a_mistake_in_the_file_is_an_error(folder: Path, text: str, words: str) -> None:
    """Any mistake in the settings file is a ConfigError."""
    write(folder / "audioext.toml", text)
    with pytest.raises(ax.ConfigError, match=words):
        ax.Client.from_env()


@pytest.mark.parametrize("file", [5, ["audioext.toml"], object()])
def test_the_file_is_a_path(file: Any) -> None:
    """A `file=` that is no path is a ConfigError."""
    with pytest.raises(ax.ConfigError, match="the file of settings must be a path"):
        ax.Client.from_env(file=file)


def test_a_byte_order_mark_is_no_part_of_a_file(folder: Path) -> None:
    """Windows editors put a byte order mark before the settings, a key and a webhook key: it is skipped."""
    mark = "\N{ZERO WIDTH NO-BREAK SPACE}"
    write(folder / "kie", f"{mark}{KEY}\r\n")
    write(folder / "hooks", f"{mark}hook-key\r\n")
    write(folder / "audioext.toml", f'{mark}wait_timeout = 7\r\n[kie]\r\napi_key_file = "kie"\r\n')
    found = read_settings({"KIE_WEBHOOK_KEY_FILE": str(folder / "hooks")})

    assert {"AUDIOEXT_WAIT_TIMEOUT": "7", "KIE_API_KEY": KEY, "KIE_WEBHOOK_KEY": "hook-key"} == found


def test_secrets_come_from_files_as_containers_mount_them(folder: Path) -> None:
    """A variable or key ending in _FILE names a file with the value, relative to the settings file it stands in."""
    write(folder / "kie", f"{KEY}\n")
    write(folder / "hooks", "new-key old-key")
    write(folder / "secrets", "0123456789abcdef-new\n0123456789abcdef-old\n")
    config = write(folder / "my.toml", 'secrets_file = "secrets"\n[kie]\nwebhook_key_file = "hooks"\n')
    environ = {"KIE_API_KEY_FILE": str(folder / "kie"), "AUDIOEXT_CONFIG": str(config)}
    found = read_settings(environ)

    assert {"KIE_API_KEY": KEY, "KIE_WEBHOOK_KEY": "new-key old-key"} == {
        name: text for name, text in found.items() if name.startswith("KIE_")
    }
    assert {"secrets": ["0123456789abcdef-new", "0123456789abcdef-old"]} == client_options(found)
    (provider,) = find_providers(found)
    assert (True, True) == (provider.info.has_key, provider.info.is_signed)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"KIE_API_KEY_FILE": "/nosuch"}, "KIE_API_KEY_FILE: cannot read /nosuch"),
        ({"KIE_API_KEY_FILE": "/dev/null"}, "KIE_API_KEY_FILE: /dev/null is empty"),
        ({"KIE_API_KEY_FILE": "/x", "KIE_API_KEY": "x"}, "both KIE_API_KEY and KIE_API_KEY_FILE are set"),
        ({"AUDIOEXT_CONFIG": "/nosuch.toml"}, "cannot read the settings in /nosuch.toml"),
    ],
)
def test_a_file_that_is_named_has_to_be_there(environ: dict[str, str], words: str) -> None:
    """A named file that is missing or empty, and a value that is set twice, are errors."""
    with pytest.raises(ax.ConfigError, match=words):
        read_settings(environ)


def test_a_secret_that_everybody_can_read_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A secret that everybody can read is a warning; a settings file without secrets may be readable."""
    caplog.set_level(logging.WARNING)
    open_to_all = write(folder / "key", KEY, 0o644)
    write(folder / "audioext.toml", f'store = "sqlite:///a.db"\n[kie]\napi_key_file = "{folder / "kie"}"', 0o644)
    write(folder / "kie", KEY)
    read_settings({})
    before = [record.getMessage() for record in caplog.records]
    read_settings({"KIE_API_KEY_FILE": str(open_to_all)})
    write(folder / "audioext.toml", '[kie]\napi_key = "x"', 0o644)
    read_settings({})

    assert [] == before
    assert [
        f"{open_to_all} holds a secret, and everybody on this machine can read it: chmod o-r {open_to_all}",
        "audioext.toml holds a secret, and everybody on this machine can read it: chmod o-r audioext.toml",
    ] == [record.getMessage() for record in caplog.records]
    assert KEY not in caplog.text


def test_a_file_that_everybody_can_write_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A settings or secret file that everybody can write is a warning, as whoever sets a base URL receives the key."""
    caplog.set_level(logging.WARNING)
    key = write(folder / "key", KEY, 0o602)
    write(folder / "audioext.toml", 'store = "sqlite:///a.db"', 0o602)
    read_settings({"KIE_API_KEY_FILE": str(key)})

    assert [
        f"everybody on this machine can change {path}, and with it the settings: chmod o-w {path}"
        for path in ("audioext.toml", key)
    ] == [record.getMessage() for record in caplog.records]


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can give a file away")
def test_a_settings_file_of_another_user_is_refused(folder: Path) -> None:
    """A settings file that another user left in the working folder is refused unless AUDIOEXT_CONFIG names it."""
    left = write(folder / "audioext.toml", '[kie]\nbase_url = "https://attacker.test"\n')
    os.chown(left, 65_534, 65_534)

    with pytest.raises(ax.ConfigError, match="is another user's: to trust it, set AUDIOEXT_CONFIG"):
        ax.Client.from_env()
    assert {"KIE_BASE_URL": "https://attacker.test"} == read_settings({"AUDIOEXT_CONFIG": "audioext.toml"})


def test_providers_are_those_whose_keys_are_there() -> None:
    """Providers are those with a key, the named one first; kie-jobs needs to be named; each has its own base URL."""
    keys = {"KIE_API_KEY": KEY, "VIDGO_API_KEY": KEY, "VIDGO_BASE_URL": "http://vidgo.test"}
    usual = find_providers(keys)
    named = find_providers({**keys, "AUDIOEXT_PROVIDER": "kie-jobs", "AUDIOEXT_BASE_URL": "http://jobs.test"})

    assert ["kie", "vidgo"] == [each.info.name for each in usual]
    assert "http://vidgo.test" == str(usual[1].info.base_url).rstrip("/")
    assert ["kie-jobs", "kie", "vidgo"] == [each.info.name for each in named]
    assert ["http://jobs.test", "https://api.kie.ai"] == [str(each.info.base_url).rstrip("/") for each in named[:2]]
    assert [] == find_providers({})


def test_given_providers_get_their_keys_from_files_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env(Kie())` uses the key of a mounted secret file."""
    monkeypatch.setenv("VIDGO_API_KEY", KEY)
    monkeypatch.setenv("KIE_API_KEY_FILE", str(write(folder / "kie", KEY)))

    assert "<Client kie, new>" == repr(ax.Client.from_env(ax.Kie()))
    assert ["kie", "vidgo"] == [each.info.name for each in find_providers({"KIE_API_KEY": KEY, "VIDGO_API_KEY": KEY})]


def test_the_readme_lists_every_setting_once() -> None:
    """The README's table of settings has exactly one row for each setting."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| `([A-Z_]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for name, _ in rows]
    expected = {*(get_type_hints(ClientOptions).keys() - CODE_ONLY), *NON_CLIENT_SETTINGS}
    expected |= {"kie.api_key", "kie.base_url", "kie.webhook_key"}

    assert sorted(expected) == sorted(names)
    for name, variable in rows:
        assert (name.replace(".", "_") if "." in name else f"audioext_{name}").upper() == variable


def test_metrics_are_switched_on_or_given_an_address() -> None:
    """The metrics setting takes yes or no, and any other word is an address."""
    found = [client_options({"AUDIOEXT_METRICS": text}) for text in ("true", "off", "9464", "0.0.0.0:9000")]

    assert [{"metrics": value} for value in (True, False, "9464", "0.0.0.0:9000")] == found
