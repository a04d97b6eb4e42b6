"""``/workflows``: definitions, starts, pauses, schedules; ``POST /events`` starts workflows too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.http.api.exchange import (
    AcceptedExecution,
    ApiRequest,
    WholeValue,
    require,
    without,
)
from automate_kernel.http.api.problems import ApiError, NotThereError
from automate_kernel.workflows.steer.schedule import Schedule
from automate_kernel.workflows.store.catalogue import ALL_TENANTS, Entry

# So many of the latest executions say which versions are in use.
_VERSIONS_AMONG = 200


def list_workflows(request: ApiRequest) -> list[Any]:
    """List the workflows, by name: the tenant's own, and everybody's."""
    found = sorted(_entries(request), key=lambda entry: entry.workflow.name)
    return [_told(entry) for entry in found]


def show(request: ApiRequest, name: str) -> Any:
    """Read one workflow, with its definition."""
    entry = _entry(request, name)
    mine = request.client.own_tenant
    pauses = request.kernel.workflows.paused()
    paused = any(each.workflow == name and each.tenant_id in (None, mine) for each in pauses)
    return _told(
        entry, definition=entry.workflow.to_dict(), definition_id=entry.workflow.hash(),
        paused=paused,
    )  # fmt: skip


def list_versions(request: ApiRequest, name: str) -> list[Any]:
    """List the definitions that the workflow's latest 200 executions are pinned to."""
    entry, store = _entry(request, name), request.kernel.executions
    pair = (name, request.client.own_tenant)
    first: dict[str, Any] = {}
    for execution in store.latest([pair], limit=_VERSIONS_AMONG).get(pair, ()):
        first[execution.definition_id] = execution.created_at  # the earliest of each comes last
    found = []
    for digest, created_at in first.items():
        try:
            definition = store.definition(digest).to_dict()
        except AutomateError:
            continue  # it is of code that this process does not have, or was deleted meanwhile
        found.append({
            "definition_id": digest, "first_used_at": created_at,
            "current": digest == entry.workflow.hash(), "definition": definition,
        })  # fmt: skip
    return found


def start(request: ApiRequest, name: str) -> AcceptedExecution:
    """Begin an execution, whatever the workflow's triggers."""
    given = _permitted(request)
    begun = request.kernel.start(name, given.pop("payload", None), **given)
    return AcceptedExecution(begun)


def pause(request: ApiRequest, name: str) -> Any:
    """Let no step of a workflow begin: for a tenant its own executions, or all."""
    _entry(request, name)
    tenant = request.command["tenant_id"]
    request.kernel.workflows.pause(name, request.body.get("reason", ""), tenant_id=tenant)
    return {"name": name, "tenant_id": tenant, "paused": True}


def resume(request: ApiRequest, name: str) -> Any:
    """Let the executions of a paused workflow go on."""
    _entry(request, name)
    tenant = request.command["tenant_id"]
    resumed = request.kernel.workflows.resume(name, tenant_id=tenant)
    require(resumed, "It is not paused.")
    return {"name": name, "tenant_id": tenant, "paused": False}


def emit(request: ApiRequest) -> Any:
    """Accept an event. It exists once the answer is 202, and once for one Idempotency-Key."""
    given = _permitted(request)
    name, payload = given.pop("name"), given.pop("payload", None)
    return {"id": request.kernel.emit(name, payload, **given)}


def _permitted(request: ApiRequest) -> dict[str, Any]:
    if "priority" in request.body and not request.client.operator:
        # The order among tenants is not for one of them to decide.
        raise ApiError(403, "Only an operator can give a priority.")
    return request.command


# -- schedules ---------------------------------------------------------------------------------


def list_all_schedules(request: ApiRequest) -> Sequence[Any]:
    """List the schedules of all workflows: those of the tenant's own, for an operator all."""
    return _schedules(request)


def list_schedules(request: ApiRequest, name: str) -> Sequence[Any]:
    """List a workflow's schedules: those of the tenant's own, for an operator all."""
    found = _schedules(request, name)
    if not found:
        _entry(request, name)
    return found


def pause_schedules(request: ApiRequest, name: str) -> Any:
    """Let a workflow's schedules fire no more."""
    return {"changed": request.kernel.schedules.pause(name, **request.command)}


def resume_schedules(request: ApiRequest, name: str) -> Any:
    """Let paused schedules fire again."""
    return {"changed": request.kernel.schedules.resume(name, **request.command)}


def trigger_schedule(request: ApiRequest, name: str) -> AcceptedExecution:
    """Fire a schedule now, beside its own times."""
    return AcceptedExecution(request.kernel.schedules.trigger(name, **request.command))


def backfill_schedule(request: ApiRequest, name: str) -> Any:
    """Fire each time of a range in the past; one that has an execution makes none again."""
    given: Mapping[str, Any] = request.command
    fire = request.kernel.schedules.backfill
    return {"changed": fire(name, given["start"], given["end"], **without(given, "start", "end"))}


def _schedules(request: ApiRequest, name: str | None = None) -> list[Schedule]:
    return request.kernel.schedules.find(name, tenant_id=_seen(request))


# -- finding -----------------------------------------------------------------------------------


def _seen(request: ApiRequest) -> Any:
    return ALL_TENANTS if request.client.operator else request.client.own_tenant


def _entries(request: ApiRequest) -> list[Entry]:
    return request.kernel.workflows.entries(tenant_id=_seen(request))


def _entry(request: ApiRequest, name: str) -> Entry:
    for entry in _entries(request):
        if entry.workflow.name == name:
            return entry
    raise NotThereError


def _told(entry: Entry, **more: Any) -> Any:
    problem = None if entry.error is None else entry.error.message
    return WholeValue(entry, problem=problem, **more)
