"""`audioext doctor`: whether the public URL, the keys, the clock and the store work, and what to do where not."""

from __future__ import annotations

import os
from typing import Annotated

from attrs import asdict, frozen
from rich.table import Table
from rich.text import Text

from audioext import config, providers
from audioext.check.report import CheckLine, CheckReport, failed, warning
from audioext.cli.arguments import real_provider
from audioext.cli.clients import missing_file, read_listen
from audioext.cli.exits import Exit
from audioext.cli.options import (
    API_GROUP,
    ApiOptions,
    BaseUrlOptions,
    Command,
    ProviderName,
    StoreOptions,
    WebhookOptions,
    option,
)
from audioext.cli.screen import Screen
from audioext.client import Client
from audioext.errors import ConfigError
from audioext.providers.base import Provider

MARKS = {"ok": ("✔", "green"), "warning": ("!", "yellow"), "failed": ("✘", "red")}


@frozen(kw_only=True, slots=False)
class DoctorCommand(WebhookOptions, BaseUrlOptions, StoreOptions, Command):
    """`audioext doctor`."""

    provider: Annotated[
        ProviderName | None, option("The API to look at; all whose keys are known, if none is named.", API_GROUP)
    ] = None

    async def run(self, screen: Screen) -> Exit:
        """Look at everything, and print a line for each thing."""
        found, lines = self._providers()
        path, store = missing_file(self.store_url), self.store_url or None
        if path is not None and path.absolute().parent.is_dir():  # a look should make no file
            lines.append(warning("store", f"there is no file at {path} yet", "--store says where; a submit makes it"))
            store = None
        client = Client(*found, public_url=self.public_url, listen=read_listen(self.listen), store=store)
        seen = (await client.check()).lines
        if store is None:
            seen = tuple(line for line in seen if line.name != "store")
        report = CheckReport((*lines, *seen))
        if screen.json:
            screen.emit({"ok": report.ok, "lines": [asdict(line) for line in report.lines]})
        elif screen.out.is_terminal:
            screen.out.print(_table(report), soft_wrap=False)
        else:
            screen.result(str(report))
        return Exit.OK if report.ok else Exit.UNWELL

    def _providers(self) -> tuple[list[Provider], list[CheckLine]]:
        """Return the providers to look at, and a line for each that would never call the public URL, or for none."""
        url, found, lines = config.read_public_url(self.public_url), list[Provider](), list[CheckLine]()
        named = self.provider or ("kie" if self.base_url is not None else None)
        api = ApiOptions(webhook_key=self.webhook_key)
        for name in providers.NAMES if named is None else (named,):
            (provider,) = config.named([real_provider(name, self.base_url, api)], os.environ).values()
            if named is None and not provider.info.has_key:
                continue
            try:
                config.check_callbacks([provider], url)
            except ConfigError as error:
                lines.append(failed("public_url", str(error), "give such an address, or use another provider"))
            else:
                found.append(provider)
        if not found and not lines:
            variables = dict.fromkeys(real_provider(each, None, api).info.key_variable for each in providers.NAMES)
            lines.append(warning("keys", "none is known", f"set one of {', '.join(variables)}, unless you only listen"))
        return found, lines


def _table(report: CheckReport) -> Table:
    table = Table.grid(padding=(0, 1))
    for line in report.lines:
        mark, style = MARKS[line.state]
        said = Text(line.seen)
        if line.advice:
            said.append(f"\n→ {line.advice}", style="bold")
        table.add_row(Text(mark, style=style), Text(line.name), said)
    return table
