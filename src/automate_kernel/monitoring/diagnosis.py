"""What can be told of a kernel's health, for whatever command line asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from automate_kernel.errors import AutomateError
from automate_kernel.plugins.discovery import misspelt
from automate_kernel.secrets.redaction import redact_text

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.outbox import OutboxStore
    from automate_kernel.storage import Storage
    from automate_kernel.storage.migration import SchemaReport
    from automate_kernel.workflows.definition.model import Step, Workflow

__all__ = [
    "IDLE_SECONDS",
    "Finding",
    "clock_finding",
    "findings_of",
    "plugin_findings",
    "schema_findings",
    "secret_findings",
    "secret_uses",
    "variables_of",
    "worker_findings",
    "workflow_findings",
    "workflow_problems",
]


def workflow_problems(kernel: Kernel, workflow: Workflow) -> list[str]:
    """
    What would go wrong with a workflow that is well-formed, each in a line.

    Its actions exist and are given the fields that they need, its webhooks are known, and its
    environment variables are allowed.
    """
    return [
        *_trigger_problems(kernel, workflow),
        *(
            problem
            for place, step in _steps(workflow)
            for problem in _step_problems(kernel, place, step)
        ),
        *_env_problems(kernel, workflow),
    ]


def _steps(workflow: Workflow) -> Iterator[tuple[str, Step]]:
    for group in ("steps", "on_failure"):
        for step in getattr(workflow, group):
            yield f"{group}.{step.id}", step


def _step_problems(kernel: Kernel, place: str, step: Step) -> Iterator[str]:
    try:
        spec = kernel.operation(step.action)
        schema = spec.json_schema()
    except AutomateError as error:
        yield f"{place}.action: {error}"
        return
    if not isinstance(step.input, Mapping):
        return
    known: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        for name in step.input:
            if "{" not in name and "$" not in name and name not in known:
                fields = ", ".join(known) or "none"
                yield f"{place}.input.{name}: {step.action} has no such field (it has: {fields})"
    for name in schema.get("required", ()):
        if name not in step.input and not any("{" in key for key in step.input):
            yield f"{place}.input: {step.action} needs the field {name!r}"


def _trigger_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    from fnmatch import fnmatchcase

    from automate_kernel.workflows.definition.model import WebhookTrigger

    for trigger in workflow.triggers:
        if not isinstance(trigger, WebhookTrigger):
            continue
        try:
            connector = kernel.plugins.connectors.get(trigger.connector)
            known = [each.name for each in connector.triggers()]
        except AutomateError as error:
            yield f"trigger: {error}"
            continue
        if not any(fnmatchcase(name, trigger.trigger) for name in known):
            has = ", ".join(known) or "none"
            yield f"trigger: {trigger.connector} has no trigger {trigger.trigger!r} (it has: {has})"


def variables_of(kernel: Kernel, workflow: Workflow) -> list[str]:
    """The environment variables that a workflow reads."""
    used = set(workflow.env)
    for _, step in _steps(workflow):
        used |= kernel.templates.compile(step.input).env_keys
    return sorted(used)


def _env_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    for name in variables_of(kernel, workflow):
        try:
            kernel.env.get(name)
        except AutomateError as error:
            yield f"env: {error}"


def secret_uses(
    kernel: Kernel, config: Mapping[str, Any], token: str | None = None
) -> dict[str, list[str]]:
    """The keys of the secrets that workflows, plugins' config and webhooks need, and where."""
    uses: dict[str, list[str]] = {}

    def add(keys: Iterable[str], where: str) -> None:
        for key in keys:
            places = uses.setdefault(key, [])
            if where not in places:
                places.append(where)

    for workflow in kernel.workflows:
        for place, step in _steps(workflow):
            add(kernel.templates.compile(step.input).secret_keys, f"{workflow.name}: {place}")
        add(*_webhook_keys(kernel, workflow))
    for key, options in config.items():
        add(kernel.templates.compile(dict(options)).secret_keys, f"config.{key}")
    if token and token.startswith("$secret:"):
        add([token.removeprefix("$secret:").strip("{}")], "serve.events_token")
    return dict(sorted(uses.items()))


def _webhook_keys(kernel: Kernel, workflow: Workflow) -> tuple[list[str], str]:
    from fnmatch import fnmatchcase

    from automate_kernel.workflows.definition.model import WebhookTrigger

    keys: list[str] = []
    for trigger in workflow.triggers:
        if not isinstance(trigger, WebhookTrigger):
            continue
        try:
            specs = kernel.plugins.connectors.get(trigger.connector).triggers()
        except AutomateError:
            continue  # told with the workflow's other problems
        for spec in specs:
            if fnmatchcase(spec.name, trigger.trigger):
                keys += getattr(spec.signature, "keys", ())
    return keys, f"{workflow.name}: webhook"


State = Literal["ok", "warn", "fail"]
_SKEW_SECONDS = 5.0
_LATE_SECONDS = 300.0
IDLE_SECONDS = 60.0
"""For how long work may be due that no worker works on, before the doctor calls that a failure."""
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


def clock_finding(storage: Storage) -> Finding:
    """How far the database's clock is off this machine's; raises `StorageError`."""
    with storage.begin() as rows:  # writes, where that is how a transaction begins
        before, now, after = time.time(), rows.now(), time.time()
    skew = now.timestamp() - (before + after) / 2
    off = max(0.0, abs(skew) - (after - before) / 2)
    if off > _SKEW_SECONDS:
        remedy = "set both clocks by NTP; signed webhooks are refused at 300 s"
        return Finding("clock", "warn", f"the database's clock is {skew:+.1f} s off ours", remedy)
    return Finding("clock", "ok", f"within {_SKEW_SECONDS:g} s of the database's")


def schema_findings(storage: Storage) -> list[Finding]:
    """
    What is missing or wrong in the tables, and the command that mends it.

    Raises `StorageError` for a database that can't be used.
    """
    place, check = storage.describe(), getattr(storage, "check_schema", None)
    if check is None:
        return [Finding("database", "ok", f"{place}: reachable")]
    report: SchemaReport = check()
    if report.empty:
        text = f"{place}: it has none of the tables"
        return [Finding("database", "fail", text, report.remedy)]
    found = [
        Finding(
            "database",
            "fail" if each.needed else "warn",
            f"{each.text}" + ("" if each.needed else ": slow"),
            report.remedy,
        )
        for each in report.differences
    ]
    if report.version is not None and report.version > report.expected:
        text = f"the tables are of version {report.version}, this release's of {report.expected}"
        remedy = "update this program: it may lack what the other writes"
        found.append(Finding("database", "warn", text, remedy))
    version = "" if report.version is None else f" of version {report.version}"
    return found or [
        Finding("database", "ok", f"{place}: reachable, the tables{version} are as they should be")
    ]


def plugin_findings(kernel: Kernel) -> list[Finding]:
    """The plugins that don't load, all of which are imported for it, and config for none."""
    plugins = kernel.plugins
    records = plugins.load_all()
    found = [
        Finding(
            "plugins",
            "warn" if each.state.value == "DISABLED" else "fail",
            f"{each.kind} {each.key} is {each.state.value}: {each.error or each.target}",
            each.remedy,
        )
        for each in records
        if not each.usable and each.remedy
    ]
    remedy = "correct disabled or winners"
    found += [
        Finding("plugins", "warn", f"there is no plugin {name!r} to disable or prefer", remedy)
        for name in plugins.unmatched()
    ]
    remedy = "correct the key, or install the plugin"
    found += [Finding("plugins", "warn", each, remedy) for each in kernel.unused_config]
    found += [Finding("plugins", "warn", str(wrong), wrong.remedy) for wrong in misspelt()]
    return found or [Finding("plugins", "ok", f"{len(records)} load")]


def workflow_findings(kernel: Kernel, *, none: str | None = None) -> list[Finding]:
    """What would go wrong with the kernel's workflows; *none* is the remedy if there are none."""
    entries = kernel.workflows.entries()
    found = [
        Finding("workflows", "fail", f"{name}: {error}", None)
        for (_, name), error in sorted(kernel.workflows.problems().items(), key=str)
    ]
    for workflow in [entry.workflow for entry in entries if entry.error is None]:
        found += [
            Finding("workflows", "fail", f"{workflow.name}: {problem}", None)
            for problem in workflow_problems(kernel, workflow)
        ]
        found += [
            Finding("workflows", "warn", f"{workflow.name} reads {name}, which is not set", None)
            for name in variables_of(kernel, workflow)
            if name not in os.environ
        ]
    if found:
        return found
    if not entries:
        return [Finding("workflows", "warn" if none else "ok", "there are none", none)]
    return [Finding("workflows", "ok", f"{len(entries)} are valid")]


def secret_findings(kernel: Kernel, uses: Mapping[str, Sequence[str]]) -> list[Finding]:
    """The secrets that can't be read, of those in *uses*: keys, and the places that need them."""
    report = kernel.secrets.check(uses)
    found = [
        Finding("secrets", "fail", each.problem, f"{each.key} is used by {uses[each.key][0]}")
        for each in report.problems
    ]
    found += [
        Finding("secrets", "warn", each.warning, "take a longer, random value")
        for each in report.warnings
    ]
    return found or [Finding("secrets", "ok", f"all {len(uses)} that are used can be read")]


def worker_findings(
    outbox: OutboxStore,
    *,
    command: str,
    worker: str = "automate worker",
    kinds: Collection[str] | None = None,
    idle_seconds: float = IDLE_SECONDS,
) -> list[Finding]:
    """
    What is late, stale, paused or failed, and what nobody works on.

    *command* and *worker* are the command line's own, for remedies. *kinds* are those that workers
    have handlers for, if that is known. Work that is due for *idle_seconds*, and that no worker
    works on, is a failure.
    """
    found = [
        *_failing(outbox),
        *_stale(outbox, command),
        *_lost(outbox),
        *_idle(outbox, worker, idle_seconds),
        *_waiting(outbox, command),
        *_unhandled(outbox, kinds),
    ]
    running = len(outbox.running(limit=_LOOKED_AT))
    alive = sum(each.alive for each in outbox.workers())
    text = f"{_items(running)} running, none stale or late; {_counted(alive, 'worker')} seen"
    return found or [Finding("workers", "ok", text)]


def _failing(outbox: OutboxStore) -> Iterator[Finding]:
    for each in outbox.workers():
        if each.problem is not None and not each.lost:
            text = f"a worker on {each.host} can't begin: {each.problem}"
            yield Finding(
                "workers", "fail", text, "its log says why; it is started again and again"
            )


def _idle(outbox: OutboxStore, worker: str, seconds: float) -> Iterator[Finding]:
    """Work that is due, and that nobody works on."""
    stats, alive = outbox.stats(), [each for each in outbox.workers() if each.alive]
    late = stats.late
    if not late and stats.oldest_due_seconds is not None:
        late = {"": stats.oldest_due_seconds}  # a store that doesn't tell of which kind
    handled = {kind for each in alive for kind in each.kinds}
    idle = {
        kind: age
        for kind, age in late.items()
        if age > seconds
        and kind not in stats.paused
        and kind not in handled
        and not (alive and not kind)
    }
    if not idle:
        return
    counts = (
        [stats.counts.get(kind, {}) for kind in idle]
        if "" not in idle
        else [*stats.counts.values()]
    )
    waiting = sum(of.get("PENDING", 0) + of.get("RETRY", 0) for of in counts)
    text = f"{_items(waiting)} waiting, the oldest due for {max(idle.values()):.0f} s, and "
    if not alive:
        remedy = f"start one: {worker}"
        yield Finding("workers", "fail", f"{text}no worker runs", remedy)
        return
    named = ", ".join(sorted(idle))
    text += f"none of {_counted(len(alive), 'worker')} works on their kind: {named}"
    yield Finding("workers", "fail", text, f"start one that has its handler: {worker}")


def _stale(outbox: OutboxStore, command: str) -> Iterator[Finding]:
    now = datetime.now(timezone.utc)
    stale = [
        each
        for each in outbox.running(limit=_LOOKED_AT)
        if each.lease_expires_at is not None and each.lease_expires_at < now
    ]
    if stale:
        owners = ", ".join(sorted({str(each.lease_owner) for each in stale}))
        text = f"{_items(len(stale))} held by workers that stopped renewing: {owners}"
        remedy = f"start a worker, which recovers them, or run {command} reap"
        yield Finding("workers", "warn", text, remedy)


def _lost(outbox: OutboxStore) -> Iterator[Finding]:
    lost = [each.id for each in outbox.workers() if each.lost and each.problem is None]
    if lost:
        text = f"{_counted(len(lost), 'worker')} not heard of for a minute: {', '.join(lost)}"
        yield Finding("workers", "warn", text, "look for them: killed, or cut off the database")


def _waiting(outbox: OutboxStore, command: str) -> Iterator[Finding]:
    stats = outbox.stats()
    late = stats.oldest_due_seconds
    if late is not None and late > _LATE_SECONDS:
        text = f"the oldest due item has waited for {late:.0f} s"
        yield Finding("workers", "warn", text, "start more workers, or find out what keeps them")
    for kind in stats.paused:
        yield Finding("workers", "warn", f"{kind} is paused", f"{command} resume {kind}")
    if failed := stats.total("FAILED"):
        remedy = f"{command} ls --status FAILED"
        yield Finding("workers", "warn", f"{_items(failed)} failed for good", remedy)


def _unhandled(outbox: OutboxStore, kinds: Collection[str] | None) -> Iterator[Finding]:
    if kinds is None:
        return
    for kind, states in outbox.stats().counts.items():
        waiting = states.get("PENDING", 0) + states.get("RETRY", 0)
        if waiting and kind not in kinds:
            text = f"{_items(waiting)} of kind {kind}, which has no handler here"
            yield Finding("workers", "warn", text, "add the handler, or cancel them")


def _items(number: int) -> str:
    return _counted(number, "item")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def findings_of(
    checks: Iterable[tuple[str, Callable[[], list[Finding]]]], *, debug: bool = False
) -> list[Finding]:
    """
    Return the findings of named checks; a check that raises is a finding itself.

    With *debug* an exception that isn't ours is raised on.
    """
    return [each for name, check in checks for each in _carefully(name, check, debug=debug)]


def _carefully(name: str, check: Callable[[], list[Finding]], *, debug: bool) -> list[Finding]:
    try:
        return check()
    except AutomateError as error:
        hint = error.hint and redact_text(error.hint)
        return [Finding(name, "fail", redact_text(error.message), hint)]
    except Exception as error:
        if debug:
            raise
        # Its text may be anybody's, and hold anything.
        return [Finding(name, "fail", f"the check itself failed: {type(error).__name__}")]
