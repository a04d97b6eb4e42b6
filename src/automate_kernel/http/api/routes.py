"""The table of the API's routes: what each takes, gives and asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from automate_kernel.http.api import (
    approvals,
    deliveries,
    documents,
    executions,
    inputs,
    operations,
    outbox,
    outputs,
    service,
    workflows,
)
from automate_kernel.http.api.problems import ApiError, NotThereError

Method = Literal["GET", "POST"]


@dataclass(frozen=True)
class ApiRoute:
    """
    A route: *handle* answers requests of *method* for *path*, to clients with *scope*.

    A part of the path in braces is an argument of *handle*; ``{name:path}`` may hold slashes.
    *query*, *body* and *output* are the models of what is sent and answered; *many* is a list of
    *output*, *paged* a page of it. An *operator* route is for operators alone. A *secret* answer
    is never kept, a *slow* one holds no transaction. *Frequent* requests are not
    in the audit trail.
    """

    name: str
    method: Method
    path: str
    scope: str
    handle: Callable[..., Any]
    output: type[outputs.ApiOutput] | None = None
    body: type[inputs.ApiInput] | None = None
    query: type[inputs.ApiInput] | None = None
    status: int = 200
    many: bool = False
    paged: bool = False
    operator: bool = False
    secret: bool = False
    frequent: bool = False
    slow: bool = False

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of its path."""
        return tuple(self.path.split("/"))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names in braces in its path."""
        return tuple(part[1:-1].partition(":")[0] for part in self.parts if part[0] == "{")

    @property
    def audited(self) -> bool:
        """
        True if the audit trail has its requests: commands of those who steer.

        Events, starts, signals and calls come in numbers, and leave an item or a record themselves.
        """
        return self.method == "POST" and not self.frequent and not self.slow

    @property
    def area(self) -> str:
        """The first part of its path, by which the documentation groups it."""
        return self.parts[0]

    def match(self, path: Sequence[str]) -> dict[str, str] | None:
        """Return the arguments in a *path*'s parts, or None if it is another route's."""
        spare, found = len(path) - len(self.parts), dict[str, str]()
        at = 0
        for part in self.parts:
            wide = part.endswith(":path}")
            taken = path[at : at + 1 + (spare if wide else 0)]
            at += len(taken)
            if not taken or not all(taken):
                return None
            if part[0] == "{":
                found[part[1:-1].partition(":")[0]] = "/".join(taken)
            elif taken != [part]:
                return None
        return found if at == len(path) else None


def _get(path: str, scope: str, handle: Callable[..., Any], **options: Any) -> ApiRoute:
    return ApiRoute(_name(handle), "GET", path, scope, handle, **options)


def _post(path: str, scope: str, handle: Callable[..., Any], **options: Any) -> ApiRoute:
    return ApiRoute(_name(handle), "POST", path, scope, handle, **options)


def _name(handle: Callable[..., Any]) -> str:
    return f"{handle.__module__.rpartition('.')[2]}.{handle.__name__}"


def _of_workflows() -> Iterator[ApiRoute]:
    one, begun = "workflows/{name}", {"output": outputs.AcceptedOutput, "status": 202}
    read, start, once = "workflows:read", "workflows:start", {**begun, "frequent": True}
    schedules = {"output": outputs.ScheduleOutput, "many": True}
    meant = {"body": inputs.ScheduleCommandInput}
    changed = {"output": outputs.ChangedOutput}
    paused = {"body": inputs.PauseInput, "output": outputs.PausedOutput}
    yield _get(
        "workflows", read, workflows.list_workflows, output=outputs.WorkflowOutput, many=True
    )
    yield _get(one, read, workflows.show, output=outputs.WorkflowDetailOutput)
    yield _get(
        f"{one}/versions", "executions:read", workflows.list_versions,
        output=outputs.WorkflowVersionOutput, many=True,
    )  # fmt: skip
    yield _post(f"{one}/start", start, workflows.start, body=inputs.StartInput, **once)
    yield _post(f"{one}/pause", "executions:write", workflows.pause, **paused)
    yield _post(f"{one}/resume", "executions:write", workflows.resume, **paused)
    yield _get(f"{one}/schedules", read, workflows.list_schedules, **schedules)
    yield _post(f"{one}/schedules/pause", start, workflows.pause_schedules, **meant, **changed)
    yield _post(f"{one}/schedules/resume", start, workflows.resume_schedules, **meant, **changed)
    yield _post(f"{one}/schedules/trigger", start, workflows.trigger_schedule, **meant, **begun)
    yield _post(
        f"{one}/schedules/backfill", start, workflows.backfill_schedule,
        body=inputs.BackfillInput, **changed,
    )  # fmt: skip
    yield _get("schedules", read, workflows.list_all_schedules, **schedules)
    yield _post(
        "events", "events:write", workflows.emit, body=inputs.EventInput, frequent=True, **begun
    )


def _of_documents() -> Iterator[ApiRoute]:
    one, read, write = "documents/{document_id}", "workflows:read", "workflows:write"
    version = f"{one}/versions/{{number}}"
    brief, saved = {"output": outputs.DocumentOutput}, {"output": outputs.DocumentVersionOutput}
    yield _get("documents", read, documents.list_documents, many=True, **brief)
    yield _post(
        "documents", write, documents.create, body=inputs.DocumentInput, status=201, **brief
    )
    yield _post(
        "documents/check", write, documents.check, body=inputs.SourceInput, frequent=True,
        output=outputs.CheckedSourceOutput,
    )  # fmt: skip
    yield _get(one, read, documents.show, output=outputs.DocumentDetailOutput)
    yield _get(f"{one}/versions", read, documents.list_versions, many=True, **saved)
    yield _get(version, read, documents.show_version, output=outputs.DocumentSourceOutput)
    yield _post(
        f"{one}/save", write, documents.save, body=inputs.DocumentSaveInput, status=201, **saved
    )
    yield _post(f"{version}/publish", write, documents.publish, **saved)
    yield _post(
        f"{version}/restore", write, documents.restore, body=inputs.DocumentRestoreInput, **saved
    )
    yield _post(f"{one}/enable", write, documents.enable, **brief)
    yield _post(f"{one}/disable", write, documents.disable, **brief)


def _of_executions() -> Iterator[ApiRoute]:
    one, read, write = "executions/{execution_id}", "executions:read", "executions:write"
    brief, begun = (
        {"output": outputs.ExecutionOutput},
        {"output": outputs.AcceptedOutput, "status": 202},
    )
    once = {**begun, "frequent": True}
    yield _get(
        "executions", read, executions.list_executions, query=inputs.ExecutionQueryInput,
        paged=True, **brief,
    )  # fmt: skip
    yield _get(
        "executions/errors", read, executions.list_errors, query=inputs.ExecutionErrorQueryInput,
        output=outputs.ErrorGroupOutput, many=True,
    )  # fmt: skip
    yield _post(
        "executions/bulk", write, executions.change_many, body=inputs.ExecutionBulkInput,
        output=outputs.ChangedOutput,
    )  # fmt: skip
    carried: dict[str, Any] = {"output": outputs.BulkProgressOutput}
    yield _post(
        "executions/bulk/begin", write, executions.begin_many, body=inputs.BulkBeginInput,
        status=202, **carried,
    )  # fmt: skip
    yield _get("executions/bulk/{bulk_id}", read, executions.show_many, **carried)
    yield _post("executions/bulk/{bulk_id}/stop", write, executions.stop_many, **carried)
    yield _get(one, read, executions.show, output=outputs.ExecutionDetailOutput)
    yield _get(f"{one}/waits", read, executions.show_waits, output=outputs.WaitingOutput)
    yield _get(
        f"{one}/output", read, executions.show_output, query=inputs.OutputQueryInput,
        output=outputs.AnsweredOutput,
    )  # fmt: skip
    yield _post(f"{one}/signal", write, executions.signal, body=inputs.SignalInput, **once)
    yield _post(f"{one}/cancel", write, executions.cancel, body=inputs.CancelInput, **brief)
    yield _post(f"{one}/pause", write, executions.pause, **brief)
    yield _post(f"{one}/unpause", write, executions.unpause, **brief)
    yield _post(f"{one}/resume", write, executions.resume, body=inputs.ResumeInput, **brief)
    yield _post(
        f"{one}/retry-step", write, executions.retry_step, body=inputs.RetryStepInput, **brief
    )
    yield _post(f"{one}/retry", write, executions.retry, **begun)
    yield _post(f"{one}/fork", write, executions.fork, body=inputs.ForkInput, **begun)


def _of_approvals() -> Iterator[ApiRoute]:
    one, read, write = "approvals/{execution_id}/{step}", "approvals:read", "approvals:write"
    shown = {"output": outputs.ApprovalOutput}
    listed: dict[str, Any] = {"query": inputs.ApprovalQueryInput, "paged": True}
    decided = {"body": inputs.DecisionInput, "output": outputs.DecidedOutput}
    yield _get("approvals", read, approvals.list_approvals, **listed, **shown)
    yield _get(
        "approvals/decisions", read, approvals.list_decisions, query=inputs.DecisionQueryInput,
        output=outputs.MadeDecisionOutput, paged=True,
    )  # fmt: skip
    yield _get(one, read, approvals.show, query=inputs.PositionQueryInput, **shown)
    yield _post(f"{one}/approve", write, approvals.approve, **decided)
    yield _post(f"{one}/reject", write, approvals.reject, **decided)


def _of_the_outbox() -> Iterator[ApiRoute]:
    one, read, write = "outbox/{item_id}", "outbox:read", "outbox:write"
    kind, brief = "outbox/kinds/{kind}", {"output": outputs.ItemOutput}
    kinds: dict[str, Any] = {"output": outputs.KindOutput, "operator": True}
    yield _get("outbox", read, outbox.list_items, query=inputs.ItemQueryInput, paged=True, **brief)
    yield _get("outbox/stats", read, outbox.show_stats, output=outputs.StatsOutput)
    yield _get(
        "outbox/errors", read, outbox.list_errors, query=inputs.ErrorQueryInput,
        output=outputs.ErrorGroupOutput, many=True,
    )  # fmt: skip
    yield _post(
        "outbox/bulk", write, outbox.change_many, body=inputs.BulkInput,
        output=outputs.ChangedOutput,
    )  # fmt: skip
    yield _get("outbox/kinds", read, outbox.list_kinds, many=True, **kinds)
    yield _post(f"{kind}/pause", write, outbox.pause_kind, body=inputs.KindPauseInput, **kinds)
    yield _post(f"{kind}/resume", write, outbox.resume_kind, **kinds)
    yield _post(f"{kind}/limit", write, outbox.limit_kind, body=inputs.KindLimitInput, **kinds)
    yield _post(f"{kind}/unlimit", write, outbox.unlimit_kind, **kinds)
    yield _get(one, read, outbox.show, output=outputs.ItemDetailOutput)
    yield _post(f"{one}/requeue", write, outbox.requeue, **brief)
    yield _post(f"{one}/cancel", write, outbox.cancel, **brief)
    yield _post(f"{one}/reschedule", write, outbox.reschedule, body=inputs.RescheduleInput, **brief)
    yield _post(f"{one}/discard", write, outbox.discard, status=204)


def _of_deliveries() -> Iterator[ApiRoute]:
    yield _get(
        "deliveries", "outbox:read", deliveries.list_deliveries, output=outputs.DeliveryOutput,
        query=inputs.DeliveryQueryInput, paged=True, operator=True,
    )  # fmt: skip
    yield _get(
        "deliveries/refused", "outbox:read", deliveries.list_refused, many=True,
        output=outputs.RefusedDeliveryOutput, query=inputs.RefusedDeliveryQueryInput,
        operator=True,
    )  # fmt: skip
    yield _post(
        "deliveries/{delivery_id}/redeliver", "events:write", deliveries.redeliver, operator=True,
        body=inputs.RedeliverInput, output=outputs.AcceptedOutput, status=202,
    )  # fmt: skip


def _of_operations() -> Iterator[ApiRoute]:
    one, read = "operations/{name:path}", "operations:read"
    told = {"output": outputs.OperationOutput}
    yield _get("operations", read, operations.list_operations, many=True, **told)
    yield _post(
        f"{one}/choices/{{field}}", read, operations.list_choices, body=inputs.ChoicesInput,
        output=outputs.ChoiceOutput, many=True, slow=True,
    )  # fmt: skip
    yield _get(one, read, operations.show, slow=True, **told)
    yield _post(
        one, "operations:call", operations.call, body=inputs.CallInput,
        output=outputs.CalledOutput, slow=True,
        frequent=True,
    )  # fmt: skip


def _of_the_service() -> Iterator[ApiRoute]:
    write = "tokens:write"
    listed: dict[str, Any] = {"query": inputs.TokenQueryInput, "paged": True}
    yield _get(
        "plugins", "plugins:read", service.list_plugins, output=outputs.PluginOutput, many=True,
        operator=True,
    )  # fmt: skip
    yield _get(
        "workers", "workers:read", service.list_workers, output=outputs.WorkerOutput, many=True,
        operator=True,
    )  # fmt: skip
    yield _get(
        "health", "workers:read", service.show_health, output=outputs.HealthOutput, operator=True
    )
    yield _get("tokens", write, service.list_tokens, output=outputs.TokenOutput, **listed)
    yield _post(
        "tokens", write, service.make_token, body=inputs.TokenRequestInput, status=201, secret=True,
        output=outputs.NewTokenOutput,
    )  # fmt: skip
    yield _post("tokens/{prefix}/revoke", write, service.revoke_token, status=204)


ROUTES: tuple[ApiRoute, ...] = (
    *_of_workflows(),
    *_of_documents(),
    *_of_executions(),
    *_of_approvals(),
    *_of_the_outbox(),
    *_of_deliveries(),
    *_of_operations(),
    *_of_the_service(),
)
"""All routes; of two that a path fits, the first answers."""
BY_NAME: Mapping[str, ApiRoute] = {route.name: route for route in ROUTES}


def find_route(method: str, path: Sequence[str]) -> tuple[ApiRoute, dict[str, str]]:
    """Return the route of a request, and the arguments in the *path*'s parts; 404, 405 if none."""
    able: set[str] = set()
    for route in ROUTES:
        found = route.match(path)
        if found is None:
            continue
        if route.method == method or (route.method, method) == ("GET", "HEAD"):
            return route, found
        able |= {"GET", "HEAD"} if route.method == "GET" else {route.method}
    if not able:
        raise NotThereError
    allowed = ", ".join(sorted(able))
    raise ApiError(405, f"Use {allowed}.", headers={"Allow": allowed})
