"""A certificate for this machine, which no public authority signed."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path) -> Path:
    """Return the certificate, with its key beside it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl makes the certificate")
    made = folder / "certificate.pem"
    asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:files.test", "-out", str(made)]
    subprocess.run([program, *asked, *files, "-keyout", str(folder / "key.pem")], check=True, capture_output=True)
    return made


def server_context(certificate: Path) -> ssl.SSLContext:
    """Return what a server of that certificate speaks TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context
