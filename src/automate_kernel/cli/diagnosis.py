"""What ``automate doctor`` looks at."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from automate_kernel.cli.checks import secret_uses, variables_of, workflow_problems
from automate_kernel.cli.command import Context
from automate_kernel.cli.output import counted
from automate_kernel.cli.version import version_line
from automate_kernel.errors import AutomateError
from automate_kernel.storage import MemoryStorage

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["CHECKS", "Finding"]

State = Literal["ok", "warn", "fail"]
_SKEW_SECONDS = 5.0
_LATE_SECONDS = 300.0
_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    state: State
    text: str
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return asdict(self)


def _program(context: Context) -> list[Finding]:
    return [Finding("program", "ok", version_line())]


def _settings(context: Context) -> list[Finding]:
    settings = context.session.settings
    found = [Finding("settings", "ok", str(settings.file or "no file: defaults and environment"))]
    for name, near in settings.strays:
        remedy = f"did you mean {near}?" if near else "unset it, if it was meant for us"
        found.append(Finding("settings", "warn", f"{name} is read by nobody", remedy))
    return found


def _database(context: Context) -> list[Finding]:
    from automate_kernel.cli.database import missing_tables

    storage = context.session.plain.storage
    place = storage.describe()
    if isinstance(storage, MemoryStorage):
        remedy = "give the kernel a storage, or workers in other processes see nothing"
        return [Finding("database", "warn", "app keeps everything in memory", remedy)]
    if hasattr(storage, "engine"):
        missing = missing_tables(storage)
        if missing:
            text = f"{place}: {len(missing)} tables are missing: {', '.join(missing)}"
            return [Finding("database", "fail", text, "run automate db create")]
    with storage.begin() as rows:  # writes, where that is how a transaction begins
        before, now, after = time.time(), rows.now(), time.time()
    found = [Finding("database", "ok", f"{place}: reachable, tables are there")]
    return [*found, _clock(now, before, after)]


def _clock(now: datetime, before: float, after: float) -> Finding:
    skew = now.timestamp() - (before + after) / 2
    off = max(0.0, abs(skew) - (after - before) / 2)
    if off > _SKEW_SECONDS:
        remedy = "set both clocks by NTP; signed webhooks are refused at 300 s"
        return Finding("clock", "warn", f"the database's clock is {skew:+.1f} s off ours", remedy)
    return Finding("clock", "ok", f"within {_SKEW_SECONDS:g} s of the database's")


@cache
def _kernel(context: Context) -> Kernel:
    return context.session.build(MemoryStorage(), workflows=False)


def _plugins(context: Context) -> list[Finding]:
    plugins = _kernel(context).plugins
    records = plugins.load_all()
    bad = [each for each in records if not each.usable and each.remedy]
    found = [
        Finding(
            "plugins",
            "warn" if each.state.value == "DISABLED" else "fail",
            f"{each.kind} {each.key} is {each.state.value}: {each.error or each.target}",
            each.remedy,
        )
        for each in bad
    ]
    remedy = "correct disabled or winners"
    found += [
        Finding("plugins", "warn", f"there is no plugin {name!r} to disable or prefer", remedy)
        for name in plugins.unmatched()
    ]
    return found or [Finding("plugins", "ok", f"{len(records)} load")]


def _workflows(context: Context) -> list[Finding]:
    kernel, found = _kernel(context), []
    for path in context.session.workflow_paths():
        try:
            kernel.add_workflow(path)
        except AutomateError as error:
            found.append(Finding("workflows", "fail", str(error), "correct the definitions"))
    for workflow in kernel.workflows:
        found += [
            Finding("workflows", "fail", f"{workflow.name}: {problem}", None)
            for problem in workflow_problems(kernel, workflow)
        ]
        found += [
            Finding("workflows", "warn", f"{workflow.name} reads {name}, which is not set", None)
            for name in variables_of(kernel, workflow)
            if name not in os.environ
        ]
    if not found and not len(kernel.workflows):
        remedy = "set workflows in automate.toml, or make the folder workflows"
        return [Finding("workflows", "warn", "there are none", remedy)]
    return found or [Finding("workflows", "ok", f"{len(kernel.workflows)} are valid")]


def _secrets(context: Context) -> list[Finding]:
    kernel, settings = _kernel(context), context.session.settings
    uses = secret_uses(kernel, settings["config"], settings["serve.events_token"])
    report = kernel.secrets.check(uses)
    found = [
        Finding("secrets", "fail", each.problem, f"{each.key} is used by {uses[each.key][0]}")
        for each in report.problems
    ]
    return found or [Finding("secrets", "ok", f"all {len(uses)} that are used can be read")]


def _workers(context: Context) -> list[Finding]:
    outbox = context.session.plain.outbox
    running = outbox.find(status="RUNNING", limit=_LOOKED_AT)
    now = datetime.now(timezone.utc)
    stale = [
        each
        for each in running
        if each.lease_expires_at is not None and each.lease_expires_at < now
    ]
    found = []
    if stale:
        owners = ", ".join(sorted({str(each.lease_owner) for each in stale}))
        text = f"{counted(len(stale))} held by workers that stopped renewing: {owners}"
        remedy = "start a worker, which recovers them, or run automate outbox reap"
        found.append(Finding("workers", "warn", text, remedy))
    stats = outbox.stats()
    late = stats.oldest_due_seconds
    if late is not None and late > _LATE_SECONDS:
        text = f"the oldest due item has waited for {late:.0f} s"
        found.append(Finding("workers", "warn", text, "start a worker, or more of them"))
    for kind in stats.paused:
        remedy = f"automate outbox resume {kind}"
        found.append(Finding("workers", "warn", f"{kind} is paused", remedy))
    if failed := stats.total("FAILED"):
        remedy = "automate outbox ls --status FAILED"
        found.append(Finding("workers", "warn", f"{counted(failed)} failed for good", remedy))
    return found or [
        Finding("workers", "ok", f"{counted(len(running))} running, none stale or late")
    ]


CHECKS: tuple[tuple[str, Callable[[Context], list[Finding]]], ...] = (
    ("program", _program),
    ("settings", _settings),
    ("database", _database),
    ("plugins", _plugins),
    ("workflows", _workflows),
    ("secrets", _secrets),
    ("workers", _workers),
)
