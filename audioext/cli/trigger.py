"""`audioext trigger`: plays one stage of a sandbox's job by hand, in the form of the API's own webhook."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from yarl import URL

from audioext.cli.clients import find_job, looking_client
from audioext.cli.commands import TriggerCommand
from audioext.cli.screen import Screen
from audioext.errors import ConfigError, WebhookError
from audioext.http.messages import Webhook
from audioext.http.urls import Route, is_loopback
from audioext.models.record import Record
from audioext.sandbox.apis import kie
from audioext.sandbox.apis._suno import CallbackForm
from audioext.sandbox.faults import Plan
from audioext.sandbox.models import MadeTrack, Task, TaskFailure, TaskInput, TaskStage
from audioext.ui.objects import state_of

FORMS: Mapping[str, CallbackForm] = {
    "kie": CallbackForm(no_songs=()),
    "kie-jobs": CallbackForm(),
    "sunoapi": CallbackForm(wide=True, all_songs=True),
}
"""The APIs that send a webhook for each stage."""
STAGES: Mapping[str, TaskStage | None] = {**{stage.word: stage for stage in TaskStage}, "error": None}


async def trigger(command: TriggerCommand, screen: Screen) -> None:
    """Feed this store's inbox the webhook of one stage, with made-up tracks."""
    api, _, stage = command.event.partition(".")
    async with looking_client(command) as client:
        record = (await find_job(client, screen, command.job)).record
        if record.provider != api or not is_loopback(URL(record.asked.base_url or "").host):
            message = f"job {record.ref} was not submitted to {api} at a sandbox: it would keep made-up tracks"
            raise ConfigError(message)
        (callback,) = FORMS[api].callbacks(_made_up(record, STAGES[stage]))
        hook = Webhook(headers={"Content-Type": "application/json"}, body=msgspec.json.encode(callback.body))
        status = await client.inbox.take(Route(api, record.ref, ""), hook, verify=False)
        after = (await client.job(record.ref)).record
    if status != HTTPStatus.OK:
        raise WebhookError(f"the webhook was answered with {status}", http_status=status)
    facts = {"event": command.event, "ref": record.ref, "status": status}
    is_same = (after.reached, after.verdict) == (record.reached, record.verdict)
    news = f"; nothing changed, it is at {state_of(after)}" if is_same else ""
    screen.result(f"job {record.ref} received {stage}{news}", json=facts)


def _made_up(record: Record, stage: TaskStage | None) -> Task:
    """Return a job's made-up task at *stage*, or failed without one; its tracks are the same at every stage."""
    names = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{record.ref}/{number}")) for number in range(record.expected_tracks)]
    task_id = record.task_id or uuid.uuid5(uuid.NAMESPACE_URL, record.ref).hex
    title = record.request.title or "made up"
    return Task(
        id=task_id,
        track_ids=tuple(names),
        number=0,
        facts=kie.FACTS,
        callbacks=FORMS[record.provider].callbacks,
        input=TaskInput(operation=str(record.operation), fields={}, title=title, model=record.model),
        plan=Plan(),
        source=None,
        tracks=tuple(MadeTrack(id=name, url=f"https://sandbox.invalid/{name}.mp3", seconds=60.0) for name in names),
        stage=stage,
        failure=TaskFailure(code=501, message="Audio generation failed.") if stage is None else None,
    )
