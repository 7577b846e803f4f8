"""Settings from outside the code: the environment takes precedence over `audioext.toml`, and code over both.

A key of the file is the variable's name in lower case, with a table for each vendor: `[kie] api_key` is `KIE_API_KEY`.
A secret may be in a file of its own, as Docker and Kubernetes mount it: `KIE_API_KEY_FILE`.
"""

from __future__ import annotations

import difflib
import logging
import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import get_type_hints

from audioext.errors import ConfigError, cut, shown
from audioext.models import checks

_log = logging.getLogger("audioext.settings")

FILE_NAME = "audioext.toml"
PREFIX = "AUDIOEXT_"
FILE_VARIABLE = f"{PREFIX}CONFIG"
VENDORS = {"kie": ("api_key", "webhook_key"), **dict.fromkeys(("sunoapi", "vidgo", "musicgpt"), ("api_key",))}
"""The keys of each vendor. They are repeated here because importing the providers is slow."""
NON_CLIENT_SETTINGS = ("provider", "base_url", "log_format", "forward_secret", "mcp_token")
"""Settings that are not `Client` arguments: the default provider, its base URL, and those of the commands."""
SECRETS = frozenset(
    {f"AUDIOEXT_{name}" for name in ("FORWARD_SECRET", "MCP_TOKEN", "SECRETS", "STORE")}
    | {f"{vendor}_{key}".upper() for vendor, keys in VENDORS.items() for key in keys}
)
"""Variables whose value is a secret or may contain one."""
MOUNTED = ("/run/", "/var/run/")
"""Where containers mount secrets, often world-readable, which is harmless in there: no warning then."""


def read_settings(environ: Mapping[str, str], file: str | PathLike[str] | None = None) -> dict[str, str]:
    """Return the settings that *environ* lacks, from a file or from files of secrets, by variable name.

    The file is *file*, else the one that `AUDIOEXT_CONFIG` names, else `audioext.toml` in the working folder, if it
    exists.

    Raises:
        ConfigError: a file cannot be read, or has an unknown setting.
    """
    if file is not None and not checks.is_path(file):
        raise ConfigError(f"the file of settings must be a path, not {shown(file)}")
    given = {name: text for name, text in environ.items() if text.strip()}
    _warn_of_unknown(given)
    path = file or given.get(FILE_VARIABLE)
    if path is None:
        _refuse_a_strangers(Path(FILE_NAME))
    found = _read_file(Path(path or FILE_NAME)) if path is not None or Path(FILE_NAME).is_file() else {}
    for name in SECRETS:
        if any({name, f"{name}_FILE"} <= each.keys() for each in (found, given)):
            raise ConfigError(f"both {name} and {name}_FILE are set: leave out one of them")
    set_here = {name.removesuffix("_FILE") for name in given}
    found = {name: text for name, text in found.items() if name.removesuffix("_FILE") not in set_here}
    for name in SECRETS:
        secret = found.pop(f"{name}_FILE", None) or given.get(f"{name}_FILE")
        if secret is not None:
            found[name] = _read_secret(f"{name}_FILE", Path(secret))
    return found


def _warn_of_unknown(given: Iterable[str]) -> None:
    """Warn of unknown variables with our prefix. They are not refused, since a user may have some of their own."""
    ours = [name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX) and name != FILE_VARIABLE]
    known = [name.removeprefix(PREFIX) for name in _variables().values() if name.startswith(PREFIX)] if ours else []
    for name in ours:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            _log.warning("%s is not a setting%s", cut(f"{PREFIX}{name}"), hint)


def _read_file(path: Path) -> dict[str, str]:
    """Return the settings in the file at *path* by variable name; paths in it are relative to its folder."""
    name = cut(str(path))
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings in {name}: {error.strerror or error}") from error
    except ValueError as error:  # a TOMLDecodeError or a UnicodeDecodeError
        raise ConfigError(f"{name} is not valid TOML: {error}") from error
    known, found = _variables(), dict[str, str]()
    for key, value in _flat(document):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{name}: {shown(key)} is not a setting{hint}")
        text = _text(f"{name}: {key}", value)
        found[known[key]] = str(path.parent / text) if key.endswith("_file") else text
    is_secret = any(name in SECRETS and (name != "AUDIOEXT_STORE" or "@" in text) for name, text in found.items())
    _warn_of_others(path, is_secret=is_secret)
    return found


def _variables() -> dict[str, str]:
    from audioext.config import CODE_ONLY, ClientOptions  # noqa: PLC0415 - slow to import, and only needed for a file

    names = [*NON_CLIENT_SETTINGS, *(name for name in get_type_hints(ClientOptions) if name not in CODE_ONLY)]
    known = {name: f"AUDIOEXT_{name.upper()}" for name in names}
    keys_of = {vendor: (*keys, "base_url") for vendor, keys in VENDORS.items()}
    known |= {f"{vendor}.{key}": f"{vendor}_{key}".upper() for vendor, keys in keys_of.items() for key in keys}
    return known | {f"{key}_file": f"{name}_FILE" for key, name in known.items() if name in SECRETS}


def _flat(document: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", each) for name, each in value.items())
        else:
            yield key, value


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(each, str) and len(each.split()) == 1 for each in value):
        return " ".join(value)
    raise ConfigError(f"{key} must be text, a number, true or false, or a list of texts without blanks")


def _read_secret(name: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeError) as error:
        message = f"{name}: cannot read {cut(str(path))}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        raise ConfigError(message) from error
    if not text:
        raise ConfigError(f"{name}: {cut(str(path))} is empty")
    _warn_of_others(path, is_secret=True)
    return text


def _refuse_a_strangers(path: Path) -> None:
    """Refuse another user's file in a shared working folder such as /tmp: whoever sets a base URL gets the API key.

    Raises:
        ConfigError: the file belongs to neither us nor root.
    """
    if hasattr(os, "geteuid") and path.is_file() and path.stat().st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{path} in this folder is another user's: to trust it, set {FILE_VARIABLE}={path}")


def _warn_of_others(path: Path, *, is_secret: bool) -> None:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:  # whoever sets a base URL gets the API key
        _log.warning("everybody on this machine can change %s, and with it the settings: chmod o-w %s", path, path)
    if is_secret and mode & stat.S_IROTH and not str(path.absolute()).startswith(MOUNTED):
        _log.warning("%s holds a secret, and everybody on this machine can read it: chmod o-r %s", path, path)
