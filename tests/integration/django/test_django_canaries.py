"""
Secrets planted wherever one can come into a Django host, and looked for wherever one could be seen.

Each has a label beside it that must arrive with the mark where the secret stood, so this can fail.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from automate_django import emit, get_kernel
from automate_django.models import ApiToken, OutboxItem, WorkflowExecution
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows import Workflow
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from rest_framework.test import APIClient
from shop import tasks

PLACES = [
    "emit", "event", "start", "task", "output", "key", "error", "refusal", "log", "path", "pause",
    "audit", "headers",
]  # fmt: skip
CANARIES = {place: f"cnry{index:02}-{place[::-1]}-x9" for index, place in enumerate(PLACES)}
NEVER_RESOLVED = "plain-unresolved-77"
API = "/api/automate"
ADMIN = "/admin/automate_django"
WORKFLOW = {
    "name": "mole",
    "trigger": {"type": "event", "event": "dig"},
    "steps": [
        {"id": "out", "action": "mole.out"},
        {"id": "refuse", "action": "mole.refuse", "on_failure": "continue"},
        {"id": "fail", "action": "mole.fail"},
    ],
}


def at(place: str) -> str:
    return f"at-{place} {CANARIES[place]} end"


@pytest.fixture
def host_log() -> Iterator[io.StringIO]:
    """The host's own handler for the kernel's records, which knows nothing of redaction."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    # What Django says of a request is its own.
    handler.addFilter(lambda record: record.name.startswith("automate"))
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def kernel(sqlite: str) -> Any:
    """The project's kernel, which knows the secrets, with a workflow that tells them."""
    kernel = get_kernel()
    for value in CANARIES.values():
        kernel.redactor.add(value)

    @kernel.action("mole.out")
    def out() -> dict[str, Any]:
        logging.getLogger("automate_kernel.worker.worker").warning("%s", at("log"))
        return {"text": at("output"), at("key"): 1, "ok": True, "n": 2024}

    @kernel.action("mole.refuse")
    def refuse() -> None:
        raise AutomateError(ErrorCodes.UNAVAILABLE, at("refusal"), retryable=False)

    @kernel.action("mole.fail")
    def fail() -> None:
        raise ValueError(at("error"))

    kernel.add_workflow(Workflow.from_dict(WORKFLOW))
    return kernel


def plant(kernel: Any, api: APIClient, admin: Client) -> None:
    """Let them come in by every way, and work on them."""
    emit("dig", {"k": [at("emit")], "password": NEVER_RESOLVED}, headers={"h": at("headers")})
    api.post(f"{API}/events", {"name": "dig", "payload": {"k": at("event")}}, format="json")
    api.post(f"{API}/workflows/mole/start", {"payload": {"k": at("start")}}, format="json")
    api.post(f"{API}/webhooks/{at('path')}%0aERROR forged/x", {}, format="json")
    tasks.give_back.enqueue(at("task"))
    tasks.noop_task.enqueue()
    tasks.tells_its_secret.enqueue()
    kernel.outbox.pause("mail", at("pause"))
    steer = {"order": "pause", "kind": "sms", "reason": at("audit")}
    assert admin.post(f"{ADMIN}/pages/kinds", steer).status_code == 303
    kernel.run_until_idle()


def seen(api: APIClient, admin: Client) -> dict[str, str]:
    """What every place shows."""
    dump, command = io.StringIO(), io.StringIO()
    call_command("dumpdata", "automate_django", stdout=dump, indent=1)
    found = {"rows": dump.getvalue()}
    items = list(OutboxItem.objects.values_list("pk", flat=True))
    executions = list(WorkflowExecution.objects.values_list("pk", flat=True))
    call_command("automate", "outbox", "ls", stdout=command)
    call_command("automate", "outbox", "show", str(items[0]), stdout=command)
    for execution in executions:
        call_command("automate", "executions", "show", str(execution), stdout=command)
        call_command("automate", "executions", "show", str(execution), "--json", stdout=command)
    found["commands"] = command.getvalue()
    addresses = [f"{API}/executions", f"{API}/outbox"]
    addresses += [f"{API}/executions/{each}" for each in executions]
    addresses += [f"{API}/outbox/{each}" for each in items]
    found["api"] = "\n".join(api.get(each).content.decode() for each in addresses)
    screens = ("", "outbox", "executions", "audit", "kinds", "workflows/mole")
    pages = [f"{ADMIN}/pages/{each}" for each in screens]
    pages += [f"{ADMIN}/outboxitem/{each}/change/" for each in items]
    pages += [f"{ADMIN}/workflowexecution/{each}/change/" for each in executions]
    pages += [f"{ADMIN}/pages/executions/{each}/steps/out/whole" for each in executions]
    responses = [admin.get(each, follow=True) for each in pages]
    assert {response.status_code for response in responses} == {200}
    found["pages"] = "\n".join(response.content.decode() for response in responses)
    return found


def test_no_canary_gets_out_of_a_django_host(kernel: Any, host_log: io.StringIO) -> None:
    """Of rows, pages, answers, commands and the host's own logs."""
    User.objects.filter(username="mole").delete()
    user = User.objects.create(username="mole", is_staff=True, is_superuser=True)
    admin, api = Client(), APIClient(raise_request_exception=False)
    admin.force_login(user)
    _, text = ApiToken.objects.issue("mole", user=user, scopes=["*"], all_tenants=True)
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    plant(kernel, api, admin)
    found = {**seen(api, admin), "log": host_log.getvalue()}
    for place, canary in {**CANARIES, "task error": "tok-51d0"}.items():
        assert [name for name, shown in found.items() if canary in shown] == [], place
    arrived = {
        name: set(re.findall(r"at-([\w-]+) \[secret\] end", shown)) for name, shown in found.items()
    }
    inward = {"emit", "event", "start"}
    outward = {"output", "key", "error", "refusal"}
    assert arrived["rows"] == {*PLACES} - {"log"}
    assert "401 for [secret]" in found["rows"]
    assert arrived["pages"] >= inward | outward | {"task", "pause", "audit"}
    assert arrived["api"] >= inward | outward | {"task", "headers"}
    assert arrived["commands"] >= inward | outward
    assert arrived["log"] >= {"log", "path"}
    assert not re.search("^ERROR forged", found["log"], re.MULTILINE)
    # Stored, since nobody knows that it is a secret; shown to nobody, since its name tells.
    assert [name for name, shown in found.items() if NEVER_RESOLVED in shown] == ["rows"]
    assert all("[hidden]" in found[name] for name in ("pages", "api", "commands"))
