"""The README's *Running it*: each unit, settings file and proxy configuration works with its program."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from yarl import URL

import audioext as ax
from audioext.check.reach import Reach
from audioext.config import client_options
from audioext.settings import read_settings
from tests.support.ports import free_port
from tests.support.proxy import make_certificate

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECRET = b"0123456789abcdef-secret"
START_SECONDS = 20.0


def block(language: str) -> str:
    """Return the only block of that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where *program* is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


async def find_ok(url: URL) -> list[ax.CheckLine]:
    """Return the lines of a check of *url*, once the port answers."""
    reach = Reach(url=url, secret=SECRET, clock=ax.Clock(), is_local=True, limit=10.0)
    lines = await reach.look()
    async with asyncio.timeout(START_SECONDS):
        while "no server answers" in str(lines):
            await asyncio.sleep(0.05)
            lines = await reach.look()
    return lines


def test_the_example_settings_file_is_valid(tmp_path: Path) -> None:
    """Each key of the settings file is known, and its secret is read from the named file."""
    key = tmp_path / "kie"
    key.write_text("0123456789abcdef0123")
    key.chmod(0o600)
    file = tmp_path / "audioext.toml"
    file.write_text(block("toml").replace("/run/secrets/kie", str(key)))
    found = read_settings({}, file)

    assert "0123456789abcdef0123" == found["KIE_API_KEY"]
    assert {"public_url", "store"} == client_options(found).keys()


@needs("systemd-analyze")
async def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` complains only of what is not installed here."""
    unit = tmp_path / "audioext.service"
    unit.write_text(block("ini").replace("/opt/audioext/bin/audioext", sys.executable))
    process = await asyncio.create_subprocess_exec(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()

    assert (0, b"") == (process.returncode, said)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        pytest.param("nginx", ("-e", "stderr", "-p", ".", "-c"), marks=needs("nginx")),
        pytest.param("haproxy", ("-db", "-f"), marks=needs("haproxy")),
    ],
)
@needs("openssl")
async def test_webhooks_come_through_the_proxies_and_no_tag_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, arguments: tuple[str, ...]
) -> None:
    """Through each proxy of the README the check passes, and the proxy's log hides the tags."""
    monkeypatch.chdir(tmp_path)
    _, certificate = await asyncio.to_thread(make_certificate, tmp_path, days=90)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + (tmp_path / "key.pem").read_text())
    front, back = free_port(), free_port()
    text = block(program)
    for old, new in {
        "443": f"127.0.0.1:{front}" if program == "nginx" else str(front),
        "8080": str(back),
        "/etc/ssl/hooks.pem": str(both),
        "/etc/ssl/hooks.key": str(both),
        "/var/log/nginx": str(tmp_path),
    }.items():
        text = text.replace(old, new)
    if program == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        user = "user root;" if os.geteuid() == 0 else ""  # else nginx would run as a user without access to the folder
        text = f"daemon off; {user} pid {tmp_path}/pid; events {{}} http {{ {paths} {text} }}"
    else:
        log = "global\n  log stdout format raw local0\ndefaults\n  log global\n"
        text = f"{log}  timeout client 15s\n  timeout server 15s\n  timeout connect 5s\n{text}"
    file = tmp_path / f"{program}.cfg"
    file.write_text(text)
    url = URL(f"https://127.0.0.1:{front}/audio")
    async with ax.Client(public_url=url, listen=f"127.0.0.1:{back}", secrets=[SECRET]):
        process = await asyncio.create_subprocess_exec(
            program, *arguments, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            lines = await find_ok(url)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            out, _ = await process.communicate()
        logs = [path.read_text() for path in tmp_path.glob("*.log")]
    logged = "".join((out.decode(), *logs))

    assert {"ok"} == {line.state for line in lines}, (lines, logged)
    assert "/audio/check/" in logged
    assert "/***" in logged
    assert [] == re.findall(r"/[\w-]{43}(?![\w-])", logged)
