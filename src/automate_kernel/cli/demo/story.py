"""What the demonstration does, and what it says meanwhile."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from textwrap import wrap
from typing import Any

from automate_kernel.cli.demo.services import FAILURES, Services
from automate_kernel.cli.demo.stage import Stage
from automate_kernel.cli.output import Output, seconds
from automate_kernel.cli.views import execution_data, item_data, show_steps
from automate_kernel.errors import ConfigError
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import OutboxItem
from automate_kernel.storage.tables import DELIVERY
from automate_kernel.webhooks import GitHubSignature, StripeSignature
from automate_kernel.workflows.execution import Execution, StepRun

__all__ = ["tell"]

_ORDER, _PUSH = "order-fulfilment", "push-news"
_SLOW = "invoice"
_WIDTH = 80


@dataclass(slots=True)
class _Facts:
    """What was observed on the way, for the checks at the end and for ``--json``."""

    responses: list[dict[str, Any]] = field(default_factory=list)
    first_worker: str = ""
    second_worker: str = ""
    killed_pid: int = 0
    takeover_seconds: float = 0.0
    exit_code: int = -1
    times: dict[str, float] = field(default_factory=dict)


def tell(out: Output, *, keep: bool) -> bool:
    """Run the demonstration; returns whether everything was as it should be."""
    if find_spec("automate_http") is None:
        raise ConfigError(
            "the demonstration needs automate-http",
            hint="pip install automate-http (in a copy of the repository: ./plugins/automate-http)",
        )
    started, facts = time.monotonic(), _Facts()
    staged = Stage(keep=keep, note=out.note)
    with staged as stage, Services(stage.secrets["CHAT_TOKEN"]) as services:
        _open(out, stage, services)
        facts.times["ready"] = time.monotonic() - started
        kernel = stage.look()
        try:
            _requests(out, stage, facts)
            _kill(out, stage, kernel, facts)
            _finish(out, stage, kernel, facts)
            facts.times["total"] = time.monotonic() - started
            return _report(out, stage, kernel, facts, keep=keep)
        finally:
            storage: Any = kernel.storage
            kernel.close()
            storage.engine.dispose()


def _scene(out: Output, number: int, title: str, why: str) -> None:
    out.line()
    out.line(f"{number}. {title}", "bold")
    for line in wrap(why, _WIDTH - 3):
        out.line(f"   {line}", "dim")


def _open(out: Output, stage: Stage, services: Services) -> None:
    _scene(
        out, 1, "A receiver and two workers start: automate serve, on a SQLite file",
        "No broker and no second service: what comes in and what was done is in one database.",
    )  # fmt: skip
    stage.serve(services.url)
    out.line(f"   receiver   {stage.url}")
    out.line(f"   services   {services.url}   (a warehouse and a chat)")
    out.line(f"   project    {stage.folder}")


# -- scene 2: requests --------------------------------------------------------------------------


def _requests(out: Output, stage: Stage, facts: _Facts) -> None:
    _scene(
        out, 2, "Webhooks come in, over HTTP, signed as GitHub and Stripe sign",
        "Forged ones are refused, and one that is sent again starts nothing a second time.",
    )  # fmt: skip
    push, order = stage.payload("github-push"), stage.payload("order-paid")
    delivery = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        **GitHubSignature().sign(push, stage.secrets["GITHUB_WEBHOOK_SECRET"]),
    }
    signed = StripeSignature("SHOP_WEBHOOK").sign(order, stage.secrets["SHOP_WEBHOOK"])
    forged = order.replace(b'"unit_amount": 4990', b'"unit_amount": 1')
    for what, path, body, headers, expected in (
        ("a push to GitHub", "/webhooks/github/push", push, delivery, 202),
        ("a paid order", "/webhooks/shop/order_paid", order, signed, 202),
        ("the order, its price changed", "/webhooks/shop/order_paid", forged, signed, 401),
        ("the order, sent again", "/webhooks/shop/order_paid", order, signed, 200),
    ):
        status, answer = stage.post(path, body, headers)
        right = status == expected
        facts.responses.append(
            {"what": what, "path": path, "status": status, "body": answer, "as_expected": right}
        )
        told = _told(answer)
        out.line(f"   {status}  {what:<28}  {told}", None if right else "red")


def _told(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return str(answer["error"])
    return f"{'again' if answer['duplicate'] else 'event'} {answer['id']}"


# -- scene 3: the crash -------------------------------------------------------------------------


def _kill(out: Output, stage: Stage, kernel: Kernel, facts: _Facts) -> None:
    _scene(
        out, 3, f"The worker is killed with SIGKILL in the middle of the step {_SLOW!r}",
        "Steps that were done stay done. Another worker takes over once the lease ends (1.5 s).",
    )  # fmt: skip
    item = stage.until(f"the step {_SLOW!r} to run", lambda: _running(kernel, _SLOW))
    facts.first_worker = item.lease_owner or ""
    facts.killed_pid = stage.pid_of(facts.first_worker)
    os.kill(facts.killed_pid, signal.SIGKILL)
    killed_at = time.monotonic()
    out.line(f"   process {facts.killed_pid} held the execution; it is gone, and replaced")

    def taken() -> OutboxItem | None:
        found = _running(kernel, _SLOW)
        return found if found and found.lease_owner != facts.first_worker else None

    item = stage.until("another worker to take over", taken)
    facts.second_worker = item.lease_owner or ""
    facts.takeover_seconds = time.monotonic() - killed_at
    pid = stage.pid_of(facts.second_worker)
    out.line(f"   process {pid} took it over after {seconds(facts.takeover_seconds)}")


def _execution(kernel: Kernel, workflow: str) -> Execution | None:
    found = kernel.executions.find(workflow=workflow, limit=1)
    return found[0] if found else None


def _running(kernel: Kernel, step_id: str) -> OutboxItem | None:
    """The outbox item of the order's execution, while a worker runs that step of it."""
    execution = _execution(kernel, _ORDER)
    step = execution.step(step_id) if execution is not None else None
    if execution is None or step is None or step.status.value != "RUNNING":
        return None
    item = kernel.outbox.get(execution.item_id or "")
    return item if item is not None and item.lease_owner else None


def _finish(out: Output, stage: Stage, kernel: Kernel, facts: _Facts) -> None:
    for workflow in (_ORDER, _PUSH):
        stage.until(f"{workflow} to end", partial(_ended, kernel, workflow))
    stopping = time.monotonic()
    facts.exit_code = stage.stop()
    facts.times["stop"] = time.monotonic() - stopping
    out.line(f"   both executions ended; SIGTERM stopped everything, exit code {facts.exit_code}")


def _ended(kernel: Kernel, workflow: str) -> Execution | None:
    execution = _execution(kernel, workflow)
    return execution if execution is not None and execution.status.finished else None


# -- scene 4: what the database says ------------------------------------------------------------


def _report(out: Output, stage: Stage, kernel: Kernel, facts: _Facts, *, keep: bool) -> bool:
    executions = sorted(kernel.executions.find(), key=lambda each: each.name)
    items = kernel.outbox.find(limit=100)
    with kernel.storage.begin() as rows:
        deliveries = sum(row["n"] for row in rows.count(DELIVERY))
    checks = _checks(stage, facts, executions, deliveries)
    out.data(
        {
            "ok": all(checks.values()),
            "checks": checks,
            "responses": facts.responses,
            "killed": {
                "pid": facts.killed_pid,
                "worker": facts.first_worker,
                "taken_over_by": facts.second_worker,
                "takeover_seconds": facts.takeover_seconds,
            },
            "executions": [execution_data(each) for each in executions],
            "items": [item_data(each) for each in items],
            "deliveries": deliveries,
            "seconds": facts.times,
            "folder": str(stage.folder) if keep else None,
        }
    )
    _scene(
        out, 4, "What the database has of it",
        "Each step was saved before the next began, with its attempts and what it gave.",
    )  # fmt: skip
    for each in executions:
        took = seconds(each.duration_seconds)
        out.line()
        out.line(f"{each.name}  {each.status.value} in {took}  {each.id}", "bold")
        show_steps(out, map(_without_headers, each.steps), length=38)
    attempts = {item.kind: 0 for item in items}
    for item in items:
        attempts[item.kind] += item.attempt_count
    told = ", ".join(f"{kind} {number}" for kind, number in sorted(attempts.items()))
    out.line()
    out.line(f"outbox: {len(items)} items; webhook deliveries: {deliveries}")
    out.line(f"attempts: {told}")
    _close(out, stage, facts, checks, executions, keep=keep)
    return all(checks.values())


def _without_headers(run: StepRun) -> StepRun:
    """Of an HTTP response only the body: the headers would fill the line."""
    if isinstance(run.output, dict) and "headers" in run.output:
        return replace(run, output=run.output["json"])
    return run


def _checks(
    stage: Stage, facts: _Facts, executions: list[Execution], deliveries: int
) -> dict[str, bool]:
    by_name = {each.name: each for each in executions}
    order = by_name[_ORDER]
    runs = {run.step_id: run for run in order.steps}
    return {
        "webhooks were answered as they should be": all(
            each["as_expected"] for each in facts.responses
        ),
        "each delivery started one execution": deliveries == len(executions) == 2,
        "both executions completed": all(e.status.value == "COMPLETED" for e in executions),
        f"the warehouse failed {FAILURES} times and was asked again": (
            runs["reserve"].attempts == FAILURES + 1
        ),
        "the killed step ran again, on another worker": (
            runs[_SLOW].attempts == 2 and facts.second_worker != facts.first_worker
        ),
        "the step before it did not run again": runs["total"].attempts == 1,
        "no secret is in the database, the log or any other file": not stage.leaks(),
        "everything stopped cleanly": facts.exit_code == 0,
    }


def _close(
    out: Output,
    stage: Stage,
    facts: _Facts,
    checks: dict[str, bool],
    executions: list[Execution],
    *,
    keep: bool,
) -> None:
    out.line()
    for text, right in checks.items():
        out.line(f"{'✓' if right else '✗'} {text}", "green" if right else "red")
    out.line()
    out.line(f"That took {seconds(facts.times['total'])}.")
    if keep:
        order = next(each for each in executions if each.name == _ORDER)
        out.line("Next:", "bold")
        out.line(f"cd {stage.folder}", "bold")
        out.line(f"automate executions show {order.id}", "bold")
    else:
        out.line("Next: automate demo --keep leaves the project for you to change.", "bold")
        out.line("automate --help has the rest.", "bold")
