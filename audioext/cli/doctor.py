"""`audioext doctor` checks the set-up, `audioext credits` prints the balance."""

from __future__ import annotations

import os

from attrs import asdict, evolve

from audioext import config
from audioext.check.reach import CheckLine, CheckReport, failed, warning
from audioext.cli.clients import make_client, missing_file, open_client, read_listen
from audioext.cli.commands import CreditsCommand, DoctorCommand
from audioext.cli.execution import in_cli_terms
from audioext.cli.exits import Exit
from audioext.cli.options import ConnectOptions
from audioext.cli.screen import Screen
from audioext.config import find_providers
from audioext.errors import ConfigError
from audioext.providers.base import Provider
from audioext.settings import SECRETS

STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


async def check(command: DoctorCommand, screen: Screen) -> Exit | None:
    """Run all checks, and print a line for each."""
    found, lines = _providers(command)
    path, store = missing_file(command.store_url), command.store_url or None
    if path is not None and path.absolute().parent.is_dir():  # a check should create no file
        lines.append(warning("store", f"there is no file at {path} yet", "--store names it; a submit creates it"))
        store = None
    client = make_client(*found, public_url=command.public_url, listen=read_listen(command.listen), store=store)
    seen = (await client.check()).lines
    if store is None:
        seen = tuple(line for line in seen if line.name != "store")
    report = CheckReport(
        tuple(evolve(line, seen=in_cli_terms(line.seen), advice=in_cli_terms(line.advice)) for line in (*lines, *seen))
    )
    if screen.json:
        screen.emit({"ok": report.ok, "lines": [asdict(line) for line in report.lines]})
    else:
        for line in report.lines:
            screen.result(str(line), style=STYLES[line.state])
    return None if report.ok else Exit.UNWELL


def _providers(command: DoctorCommand) -> tuple[list[Provider], list[CheckLine]]:
    """Return the providers to check, and lines for those that refuse the public URL, and for a lack of keys."""
    given = {"PROVIDER": command.provider, "BASE_URL": command.base_url}
    settings = {**os.environ, **{f"AUDIOEXT_{name}": value for name, value in given.items() if value}}
    url, lines = config.read_public_url(command.public_url), list[CheckLine]()
    found = find_providers(settings)[: 1 if command.provider else None]
    if not any(each.info.has_key for each in found):
        variables = ", ".join(sorted(name for name in SECRETS if name.endswith("_API_KEY")))
        lines.append(warning("keys", "none is known", f"set one of {variables}, unless you only listen"))
    for provider in tuple(found):
        try:
            config.check_callbacks([provider], url)
        except ConfigError as error:
            lines.append(failed("public_url", str(error), "use such an address, or another provider"))
            found.remove(provider)
    return found, lines


async def print_credits(command: CreditsCommand, screen: Screen) -> None:
    """Print the balance in the provider's own credits."""
    options = ConnectOptions(sandbox=command.sandbox, speed=command.speed, fault=command.fault, store="memory://")
    async with open_client(options, command.provider, screen, base_url=command.base_url) as opened:
        balance = await opened.client.credits()
    screen.result(f"{balance:g}", json={"provider": command.provider, "credits": balance})
