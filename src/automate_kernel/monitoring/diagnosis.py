"""A diagnosis of a kernel: findings about its database, plugins, workflows, secrets and workers."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ConfigError, did_you_mean
from automate_kernel.operations.plugin import Plugin
from automate_kernel.outbox.handover import CHANGED_CODE, Handover
from automate_kernel.outbox.item import WAITING
from automate_kernel.plugins.discovery import misspelt
from automate_kernel.plugins.manifest import installed_manifest
from automate_kernel.secrets.handles import masked
from automate_kernel.secrets.redaction import redact_text
from automate_kernel.secrets.tracebacks import raised_at
from automate_kernel.storage.connections import read_connections
from automate_kernel.storage.errors import ROOM
from automate_kernel.storage.output_store import LateOutputStore
from automate_kernel.storage.statuses import ItemStatus
from automate_kernel.templates.context import TemplateContext
from automate_kernel.templates.engine import is_template

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.operations.spec import OperationSpec
    from automate_kernel.outbox import OutboxItem, OutboxStats, OutboxStore, WorkerInfo
    from automate_kernel.plugins.connectors import TriggerSpec
    from automate_kernel.storage import Storage
    from automate_kernel.storage.migration import SchemaReport
    from automate_kernel.workflows.definition.model import Step, Workflow
    from automate_kernel.workflows.definition.triggers import WebhookTrigger
    from automate_kernel.workflows.execution import Execution
    from automate_kernel.workflows.steer.deadlocks import BlockedChild
    from automate_kernel.workflows.steer.schedule import Schedule


def workflow_problems(kernel: Kernel, workflow: Workflow) -> list[str]:
    """
    Return the problems of a well-formed workflow on this kernel, each in a line.

    They are about unknown actions and webhooks, missing and unknown fields, and values of the wrong
    type. They are also about secrets in what is stored, and environment variables that aren't
    allowed.
    """
    return [
        *_trigger_problems(kernel, workflow),
        *_step_problems(kernel, workflow),
        *_secret_problems(kernel, workflow),
        *_env_problems(kernel, workflow),
    ]


def _steps(workflow: Workflow) -> Iterator[tuple[str, Step]]:
    for place, step in workflow.walk():
        yield f"{place[0]}.{step.id}", step
        if step.compensation is not None:
            yield f"{place[0]}.{step.id}.compensate", step.compensation


def _step_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    for place, step in _steps(workflow):
        notice = step.approval.notify if step.approval is not None else None
        if step.action is not None:
            yield from _call_problems(kernel, place, step.action, step.input)
        elif notice is not None:
            yield from _call_problems(
                kernel, f"{place}.approval.notify", notice.action, notice.input
            )
        yield from _child_problems(kernel, place, step)


def _call_problems(kernel: Kernel, place: str, action: str, given: Any) -> Iterator[str]:
    try:
        spec = kernel.operations.spec_at_hand(action)
        schema = spec.json_schema()
    except AutomateError as error:
        yield f"{place}.action: {error}"
        return
    if isinstance(given, Mapping):
        yield from _input_problems(place, action, given, schema)
        known = schema.get("properties", {})
        written = {
            name: value
            for name, value in given.items()
            if name in known and kernel.templates.compile(value).constant
        }
        yield from _value_problems(place, action, written, spec)


def _value_problems(
    place: str, action: str, written: Mapping[str, Any], spec: OperationSpec
) -> Iterator[str]:
    """Find the values that are *written* without a template, and don't fit their fields."""
    try:
        spec.validate(written)
    except AutomateError as error:
        for problem in error.details.get("problems", ()):
            # What is missing may come from a template.
            if problem["field"].partition(".")[0] in written:
                yield f"{place}.input.{problem['field']}: {action}: {problem['message']}"


def _child_problems(kernel: Kernel, place: str, step: Step) -> Iterator[str]:
    if step.workflow is not None:
        names = {entry.workflow.name for entry in kernel.workflows.entries()}
        if step.workflow not in names:
            hint = did_you_mean(step.workflow, sorted(names))
            yield f"{place}.workflow: there is no workflow {step.workflow!r}" + (
                f" ({hint})" if hint else ""
            )


def _input_problems(
    place: str, action: str, given: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[str]:
    known: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        for name in given:
            if "{" not in name and "$" not in name and name not in known:
                fields = ", ".join(known) or "none"
                yield f"{place}.input.{name}: {action} has no such field (it has: {fields})"
    for name, field in known.items():
        text = given.get(name)
        if field.get("x-written") and isinstance(text, str) and is_template(text):
            problem = "must be written as it is, without a template"
            yield f"{place}.input.{name}: {action}: {problem} (give values by parameters)"
    for name in schema.get("required", ()):
        if name not in given and not any("{" in key for key in given):
            yield f"{place}.input: {action} needs the field {name!r}"


def _secret_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    outputs = [("", workflow.output)]
    outputs += [(f"{place}.", step.output) for place, step in _steps(workflow)]
    for place, output in outputs:
        if keys := sorted(kernel.templates.compile(output).secret_keys):
            yield f"{place}output: it is stored, and no secret is: take {', '.join(keys)} out"


def _webhooks(
    kernel: Kernel, workflow: Workflow
) -> Iterator[tuple[WebhookTrigger, list[TriggerSpec] | AutomateError]]:
    """Yield the webhook triggers of a workflow, each with its connector's triggers or the error."""
    from automate_kernel.workflows.definition.triggers import WebhookTrigger

    for trigger in workflow.triggers:
        if isinstance(trigger, WebhookTrigger):
            try:
                yield trigger, kernel.plugins.connectors.get(trigger.connector).triggers()
            except AutomateError as error:
                yield trigger, error


def _trigger_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    for trigger, specs in _webhooks(kernel, workflow):
        if isinstance(specs, AutomateError):
            yield f"trigger: {specs}"
        elif not any(fnmatchcase(spec.name, trigger.trigger) for spec in specs):
            has = ", ".join(spec.name for spec in specs) or "none"
            yield f"trigger: {trigger.connector} has no trigger {trigger.trigger!r} (it has: {has})"


def variables_of(kernel: Kernel, workflow: Workflow) -> list[str]:
    """Return the environment variables that a workflow reads."""
    used = set(workflow.env)
    for _, step in _steps(workflow):
        used |= kernel.templates.compile(step.input).env_keys
        if step.approval is not None and step.approval.notify is not None:
            used |= kernel.templates.compile(step.approval.notify.input).env_keys
    return sorted(used)


def _env_problems(kernel: Kernel, workflow: Workflow) -> Iterator[str]:
    for name in variables_of(kernel, workflow):
        try:
            kernel.env.get(name)
        except AutomateError as error:
            yield f"env: {error}"


def secret_uses(
    kernel: Kernel, config: Mapping[str, Any], tokens: Mapping[str, str | None] | None = None
) -> dict[str, list[str]]:
    """
    Return the keys of secrets that workflows, config and webhooks need, with the places.

    *tokens* are settings of which each may be a secret, by their names.
    """
    uses: dict[str, dict[str, None]] = {}

    def add(keys: Iterable[str], where: str) -> None:
        for key in keys:
            uses.setdefault(key, {})[where] = None

    for workflow in kernel.workflows:
        for place, step in _steps(workflow):
            add(kernel.templates.compile(step.input).secret_keys, f"{workflow.name}: {place}")
            if step.approval is not None and step.approval.notify is not None:
                given = kernel.templates.compile(step.approval.notify.input)
                add(given.secret_keys, f"{workflow.name}: {place}.approval.notify")
        add(_webhook_keys(kernel, workflow), f"{workflow.name}: webhook")
    if isinstance(store := kernel.executions.outputs.store, LateOutputStore):
        add(store.secret_keys, "output_store")
    references = kernel.approvals.signer.references
    add(kernel.templates.compile(references).secret_keys, "signing_keys")
    for key, options in config.items():
        add(kernel.templates.compile(dict(options)).secret_keys, f"config.{key}")
    for setting, token in (tokens or {}).items():
        if token and token.startswith("$secret:"):
            add([token.removeprefix("$secret:").strip("{}")], setting)
    return {key: list(places) for key, places in sorted(uses.items())}


def _webhook_keys(kernel: Kernel, workflow: Workflow) -> list[str]:
    keys: list[str] = []
    for trigger, specs in _webhooks(kernel, workflow):
        if isinstance(specs, AutomateError):
            continue  # reported with the workflow's other problems
        for spec in specs:
            if fnmatchcase(spec.name, trigger.trigger):
                keys += getattr(_signature(kernel, trigger.connector, spec), "keys", ())
    return keys


def _signature(kernel: Kernel, connector: str, spec: TriggerSpec) -> Any:
    try:
        return kernel.connector(connector).signature_for(spec.name)
    except AutomateError:  # reported with the plugin's own problems
        return spec.signature


State = Literal["ok", "warn", "fail"]
_SKEW_SECONDS = 5.0
_LATE_SECONDS = 300.0
IDLE_SECONDS = 60.0
"""The time that due work may wait without any worker for it; after that it is a failure."""
_LOOKED_AT = 1000
# So many executions are named one by one.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, with its remedy."""

    check: str
    state: State
    text: str
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


def clock_finding(storage: Storage) -> Finding:
    """Compare the database's clock with this machine's. Raises `StorageError`."""
    with storage.begin() as rows:  # writes, where that is how a transaction begins
        before, now, after = runtime.time(), rows.now(), runtime.time()
    skew = now.timestamp() - (before + after) / 2
    off = max(0.0, abs(skew) - (after - before) / 2)
    if off > _SKEW_SECONDS:
        remedy = "set both clocks by NTP; signed webhooks are refused at 300 s"
        return Finding("clock", "warn", f"the database's clock is {skew:+.1f} s off ours", remedy)
    return Finding("clock", "ok", f"within {_SKEW_SECONDS:g} s of the database's")


def schema_findings(storage: Storage) -> list[Finding]:
    """
    Return the differences of the tables, with the command that mends them.

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
        Finding("database", "fail", each.text, report.remedy)
        if each.needed
        else Finding("database", "warn", f"{each.text}: slow", report.remedy)
        for each in report.differences
    ]
    text = f"{place}: reachable, the tables are as they should be"
    return found or [Finding("database", "ok", text)]


def capacity_findings(
    storage: Storage, outbox: OutboxStore, *, processes: int, slots: int
) -> list[Finding]:
    """
    Return whether the server takes all connections of the workers; nothing where it has no limit.

    They are those that report, or as many *processes* as the settings name, each with *slots*.
    """
    most_connections = getattr(storage, "most_connections", None)
    if most_connections is None:
        return []
    with storage.begin(atomic=False) as rows:
        found = read_connections(rows)
    if found is None:
        return []
    workers = max(processes, sum(each.alive for each in outbox.workers()))
    each = most_connections(slots)
    text = f"{found.used} of {found.room} connections are open ({found.setting}"
    text += f" {found.limit}, {found.reserved} of them reserved)" if found.reserved else ")"
    text += f"; {workers} worker{'s' if workers > 1 else ''} may open {each} each"
    if workers * each > found.room:
        return [Finding("database", "warn", f"{text}: more than there are", ROOM)]
    if found.scarce:
        return [Finding("database", "warn", f"{text}: nearly none is left", ROOM)]
    return [Finding("database", "ok", text)]


def plugin_findings(kernel: Kernel) -> list[Finding]:
    """
    Return the plugins that don't load, unreadable manifests, and config that is wrong.

    It imports all plugins, and makes those that have config.
    """
    records, found = kernel.plugins.load_all(), []
    spare = [
        each for each in records if each.missing_extra and each.key not in kernel.operations.config
    ]
    for each in records:
        if not each.usable and each.remedy and each not in spare:
            state: State = "warn" if each.state.value == "DISABLED" else "fail"
            text = f"{each.kind} {each.key} is {each.state.value}: {each.error or each.target}"
            found.append(Finding("plugins", state, text, each.remedy))
        try:
            manifest = installed_manifest(each)
            if manifest is not None:
                manifest.require_readable()
        except AutomateError as error:
            # It works all the same: it is only imported to be shown.
            text = f"{each.kind} {each.key}: {error.message}"
            found.append(Finding("plugins", "warn", text, error.hint))
    for name in kernel.plugins.unmatched():
        text = f"there is no plugin {name!r} to disable or prefer"
        found.append(Finding("plugins", "warn", text, "correct disabled or winners"))
    remedy, config = "correct the key, or install the plugin", kernel.operations.config
    unused = kernel.plugins.unused_config(config)
    found += [Finding("plugins", "warn", text, remedy) for text in unused]
    other = "register one of them with another key="
    found += [Finding("plugins", "warn", text, other) for text in kernel.plugins.hidden()]
    found += [
        Finding("plugins", "fail", error.message, error.hint)
        for error in kernel.operations.plugin_problems(config).values()
        if isinstance(error, ConfigError)  # a secret that is missing is reported with the others
    ]
    found += [Finding("plugins", "warn", str(wrong), wrong.remedy) for wrong in misspelt()]
    # Who installs a distribution without an extra has no use for what needs it.
    less = ", ".join(f"{each.key} of {each.distribution}[{each.missing_extra}]" for each in spare)
    text = f"{len(records) - len(spare)} load" + (f"; not installed: {less}" if less else "")
    return found or [Finding("plugins", "ok", text)]


def connection_answer(kernel: Kernel, kind: str, key: str) -> str:
    """Return what the connection test of a plugin says; raises `AutomateError` if it fails."""
    try:
        answer = kernel.operations.instance(kind, key).check()
        if inspect.isawaitable(answer):  # on the loop where the plugin is closed, too
            answer = kernel.operations.portal.run(answer)
    except Exception as error:
        raise kernel.operations.clean_error(error, f"{kind} {key!r}") from None
    return "it has no connection test" if answer is None else kernel.redactor.redact(str(answer))


def connection_findings(kernel: Kernel) -> list[Finding]:
    """Return what the connection tests of the plugins with config say. They ask their services."""
    found = list(_connections(kernel))
    return found or [Finding("connections", "ok", "no plugin with config has a connection test")]


def _connections(kernel: Kernel) -> Iterator[Finding]:
    for kind in ("connector", "provider"):
        for key in kernel.plugins.keys(kind):
            if key not in kernel.operations.config:
                continue
            try:
                if type(kernel.operations.instance(kind, key)).check is Plugin.check:
                    continue
                said = connection_answer(kernel, kind, key)
            except AutomateError as error:
                text = f"{kind} {key}: {error.code}: {error.message}"
                remedy = error.hint or f"correct [config.{key}], or its secrets"
                yield Finding("connections", "fail", text, remedy)
            else:
                yield Finding("connections", "ok", f"{kind} {key}: {said}")


def places_of_links(kernel: Kernel, workflow: Workflow) -> list[str]:
    """Return the notices of approvals that read a link, while this kernel can't make any."""
    from automate_kernel.workflows.definition.problems import reads_link

    if kernel.approvals.signer.able and kernel.approvals.public_url:
        return []
    return [
        f"{place}.approval.notify"
        for place, step in _steps(workflow)
        if step.approval is not None
        and step.approval.notify is not None
        and reads_link(step.approval.notify)
    ]


def workflow_findings(
    kernel: Kernel, *, none: str | None = None, link_settings: str = "public_url and signing_keys"
) -> list[Finding]:
    """
    Return the problems of the kernel's workflows; *none* is the remedy if there are none.

    *link_settings* names what the links of approvals need.
    """
    entries = kernel.workflows.entries()
    found = [
        Finding("workflows", "fail", f"{name}: {error}")
        for (_, name), error in sorted(kernel.workflows.problems().items(), key=str)
    ]
    for workflow in [entry.workflow for entry in entries if entry.error is None]:
        problems = [f"{workflow.name}: {each}" for each in workflow_problems(kernel, workflow)]
        found += [Finding("workflows", "fail", text) for text in problems]
        found += [
            Finding("workflows", "fail", f"{workflow.name}: {place} reads a link, and none can be"
                    " made: the notice will fail", f"set {link_settings}")
            for place in places_of_links(kernel, workflow)
        ]  # fmt: skip
        for name in variables_of(kernel, workflow):
            if name not in os.environ:
                text = f"{workflow.name} reads {name}, which is not set"
                found.append(Finding("workflows", "warn", text))
    if not found and not entries:
        return [Finding("workflows", "warn" if none else "ok", "there are none", none)]
    return found or [Finding("workflows", "ok", f"{len(entries)} are valid")]


def secret_findings(kernel: Kernel, uses: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Return the secrets of *uses* (keys, with the places that need them) that can't be read."""
    report = kernel.secrets.check(uses)
    found = [
        Finding("secrets", "fail", each.problem, f"{each.key} is used by {uses[each.key][0]}")
        for each in report.problems
    ]
    remedy = "take a longer, random value"
    found += [Finding("secrets", "warn", each.warning, remedy) for each in report.warnings]
    return found or [Finding("secrets", "ok", f"all {len(uses)} that are used can be read")]


def poll_findings(kernel: Kernel, *, program: str, idle_seconds: float) -> list[Finding]:
    """Return the polls that fail, rest, or are due for *idle_seconds* and that no worker calls."""
    now, polls = runtime.utc_now(), kernel.polls.find()
    found = []
    for each in polls:
        named = each.name + (f" of {each.tenant_id}" if each.tenant_id else "")
        late = (now - each.next_at).total_seconds() if each.next_at is not None else 0.0
        if each.claimed_until is not None and each.claimed_until > now:
            late = 0.0  # a call goes on
        if each.state == "paused":
            remedy = _resuming(program, "poll", each.name, each.tenant_id)
            found.append(Finding("polls", "warn", f"{named} is paused", remedy))
        elif each.state == "failing":
            times = f"failed {_counted(each.failures, 'time')}"
            text = f"{named} has {times}: {each.error_code}: {each.error}"
            remedy = "it goes on by itself once the cause is mended"
            found.append(Finding("polls", "fail" if each.failures > 1 else "warn", text, remedy))
        elif late > idle_seconds:
            text = f"{named} is due for {late:.0f} s, and no worker calls it"
            found.append(Finding("polls", "fail", text, "start one: automate worker"))
    found += _unmatched_findings(kernel)
    return found or [Finding("polls", "ok", f"{_counted(len(polls), 'poll')}, none failing")]


def schedule_findings(kernel: Kernel, *, program: str, idle_seconds: float) -> list[Finding]:
    """Return the schedules that are paused, or due for *idle_seconds* without a worker for them."""
    with kernel.storage.begin(atomic=False) as rows:
        now = rows.now()
    schedules, found = kernel.schedules.find(), []
    for each in schedules:
        tenant = f" of {each.tenant_id}" if each.tenant_id else ""
        named = f"{each.workflow.name}{tenant} ({each.about})"
        if each.paused_at is not None:
            remedy = _resuming(program, "schedule", each.workflow.name, each.tenant_id)
            text = f"{named} is paused since {each.paused_at:%Y-%m-%d %H:%M} UTC"
            found.append(Finding("schedules", "warn", text, remedy))
        elif (late := each.overdue(now).total_seconds()) > idle_seconds:
            if _catches_up(kernel, each, now, idle_seconds):
                come_to = f"{each.last_fired_at:%Y-%m-%d %H:%M} UTC"
                text = f"{named} makes up for missed times, and has come to {come_to}"
                found.append(Finding("schedules", "ok", text))
                continue
            text = f"{named} is due for {late:.0f} s, and no worker fires it"
            found.append(Finding("schedules", "fail", text, "start one: automate worker"))
    return found or [Finding("schedules", "ok", f"{_counted(len(schedules), 'schedule')}, on time")]


def _catches_up(kernel: Kernel, schedule: Schedule, now: datetime, idle_seconds: float) -> bool:
    """Return True if a schedule that is behind has begun an execution just now."""
    if not schedule.trigger.catch_up or schedule.execution_id is None:
        return False
    begun = kernel.executions.get(schedule.execution_id)
    created_at = begun.created_at if begun is not None else None
    return created_at is not None and (now - created_at).total_seconds() <= idle_seconds


def _resuming(program: str, what: str, name: str, tenant_id: str | None) -> str:
    """Return the command that lets a poll or a schedule go on."""
    tenant = f" --tenant {shlex.quote(tenant_id)}" if tenant_id else ""
    return f"{program} resume {what} {shlex.quote(name)}{tenant}"


def _unmatched_findings(kernel: Kernel) -> Iterator[Finding]:
    """Yield the events that workflows wait for, and that sound like a connector's but are none."""
    for event, key in kernel.polls.unmatched().items():
        try:
            cls = kernel.plugins.connectors.get(key)
            polls = [f"{key}.{spec.name}" for spec in cls.polls()]
            webhooks = [spec.name for spec in cls.triggers()]
        except AutomateError:
            continue  # reported with the plugins
        meant = next((each for each in webhooks if f"{key}.{each}" == event), None)
        if meant is not None:
            remedy = f"write {{type: webhook, connector: {key}, trigger: {meant}}}"
        elif polls or webhooks:
            known = ", ".join([*polls, *(f"the webhook {each}" for each in webhooks)])
            remedy = did_you_mean(event, polls, also=f"{key} has: {known}")
        else:
            continue
        text = f"a workflow waits for the event {event!r}, which is no poll of {key!r}"
        yield Finding("polls", "warn", text, remedy)


def execution_findings(kernel: Kernel, *, program: str) -> list[Finding]:
    """
    Return the executions that wait for each other's concurrency places, and so for ever.

    *program* is the command line, for remedies: ``automate``, say.
    """
    deadlocks = kernel.executions.deadlocks()
    found = []
    for each in deadlocks:
        waiting = [_blocked_text(kernel, child) for child in each.blocked]
        text = f"executions wait for each other for ever: {_listed(waiting, '; ')}"
        remedy = (
            f"cancel one of them: {program} executions cancel {each.blocked[0].holders[-1].id};"
            " then let the sub-workflow have a concurrency key of its own, raise its limit, or"
            " start it with wait: false"
        )
        found.append(Finding("executions", "fail", redact_text(text), remedy))
    return found or [Finding("executions", "ok", "none wait for each other's concurrency places")]


def _blocked_text(kernel: Kernel, child: BlockedChild) -> str:
    """Say what a sub-workflow waits for, and who has it."""
    waiting, holders = child.execution, [f"{one.name} {one.id}" for one in child.holders]
    verb = "holds" if len(holders) == 1 else "hold"
    return (
        f"{waiting.name} {waiting.id}, a sub-workflow of {waiting.parent_id}, needs a place"
        f"{_key_of(kernel, waiting)} that {_listed(holders, ', ')} {verb}"
    )


def _key_of(kernel: Kernel, execution: Execution) -> str:
    """Return the concurrency key of *execution* as people know it; nothing for a workflow's own."""
    try:
        concurrency = kernel.executions.definition(execution.definition_id).concurrency
    except AutomateError:  # of another version: the executions deadlock all the same
        return ""
    if concurrency is None or concurrency.key is None:
        return ""
    names = TemplateContext(execution.event.to_json())
    try:
        value = kernel.templates.compile(concurrency.key).render(names)
    except AutomateError:  # a filter that this process lacks
        return f" of {concurrency.key}"
    return f" of {concurrency.key} = {masked(value)!r}"


def _listed(texts: Sequence[str], between: str) -> str:
    """Return the first *texts*, and how many more there are."""
    more = len(texts) - _NAMED
    return between.join([*texts[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


def worker_findings(
    outbox: OutboxStore,
    *,
    program: str,
    worker: str = "automate worker",
    kinds: Collection[str] | None = None,
    idle_seconds: float = IDLE_SECONDS,
) -> list[Finding]:
    """
    Return what is late, stale, paused, failed, or due without a worker for it.

    *program* and *worker* are the command line and its worker, for remedies. *kinds* are those that
    workers have handlers for, if that is known. Work that is due for *idle_seconds*, and that no
    worker works on, is a failure.
    """
    stats, workers = outbox.stats(), outbox.workers()
    running = outbox.running(limit=_LOOKED_AT)
    found = [
        *_failing(workers),
        *_stale(running, program),
        *_lost(workers),
        *_idle(stats, workers, worker, idle_seconds),
        *_handed_over(outbox, worker),
        *_following(workers),
        *_waiting(stats, program, kinds),
    ]
    alive = sum(each.alive for each in workers)
    text = f"{_counted(len(running))} running, none stale or late; {_counted(alive, 'worker')} seen"
    return found or [Finding("workers", "ok", text)]


def _failing(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    remedy = "its log says why; it is started again and again"
    for each in workers:
        if each.problem is not None and not each.lost:
            text = f"a worker on {each.host} can't begin: {each.problem}"
            yield Finding("workers", "fail", text, remedy)


def _idle(
    stats: OutboxStats, workers: Sequence[WorkerInfo], worker: str, seconds: float
) -> Iterator[Finding]:
    """Find work that is due, and that nobody works on."""
    late, alive = stats.late, [each for each in workers if each.alive]
    if not late and stats.oldest_due_seconds is not None:
        late = {"": stats.oldest_due_seconds}  # from a store that doesn't know of which kind
    handled = {*stats.paused, *(kind for each in alive for kind in each.kinds)}
    if alive:
        handled.add("")
    idle = {kind: age for kind, age in late.items() if age > seconds and kind not in handled}
    if not idle:
        return
    counts = [of for kind, of in stats.counts.items() if kind in idle or "" in idle]
    number = sum(map(_waiting_in, counts))
    text = f"{_counted(number)} waiting, the oldest due for {max(idle.values()):.0f} s, and "
    if not alive:
        yield Finding("workers", "fail", f"{text}no worker runs", f"start one: {worker}")
        return
    named = ", ".join(sorted(idle))
    text += f"none of {_counted(len(alive), 'worker')} works on their kind: {named}"
    yield Finding("workers", "fail", text, f"start one that has its handler: {worker}")


def _handed_over(outbox: OutboxStore, worker: str) -> Iterator[Finding]:
    """Find work that the workers which met it could not go on with."""
    causes: dict[str, list[Handover]] = {}
    for item in outbox.handed_over(limit=_LOOKED_AT):
        if item.handover is not None:
            causes.setdefault(item.handover.cause, []).append(item.handover)
    for notes in sorted(causes.values(), key=len, reverse=True):
        since, reason = min(note.since for note in notes), notes[0].reason
        text = f"{_counted(len(notes))} handed over since {since:%Y-%m-%d %H:%M} UTC: {reason}"
        remedy = f"start {notes[0].needed}: {worker}; or cancel the executions"
        if notes[0].code == CHANGED_CODE:
            remedy += ", then resume them from a step or start them again"
        yield Finding("workers", "warn", text, remedy)


def _following(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Find workers that leave events to a newer worker."""
    # Here, so that commands which look at no workers don't import the engine.
    from automate_kernel.workflows.steer.leader_election import followers, leader

    first, behind = leader(workers), [one.id for one in followers(workers)]
    if first is not None and behind:
        version = f" of version {first.version}" if first.version else ""
        text = f"{_counted(len(behind), 'worker')} with other workflows leave events to {first.id}"
        text += f"{version}: {', '.join(sorted(behind))}"
        yield Finding("workers", "warn", text, "end them once the newer ones do all the work")


def _stale(running: Sequence[OutboxItem], program: str) -> Iterator[Finding]:
    now = runtime.utc_now()
    stale = [each for each in running if each.lease_expires_at and each.lease_expires_at < now]
    if stale:
        owners = ", ".join(sorted({str(each.lease_owner) for each in stale}))
        text = f"{_counted(len(stale))} held by workers that stopped renewing: {owners}"
        remedy = f"start a worker, which recovers them, or run {program} outbox requeue --stale"
        yield Finding("workers", "warn", text, remedy)


def _lost(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    lost = [each.id for each in workers if each.lost and each.problem is None]
    if lost:
        text = f"{_counted(len(lost), 'worker')} not heard of for a minute: {', '.join(lost)}"
        yield Finding("workers", "warn", text, "look for them: killed, or cut off the database")


def _waiting(stats: OutboxStats, program: str, kinds: Collection[str] | None) -> Iterator[Finding]:
    late = stats.oldest_due_seconds
    if late is not None and late > _LATE_SECONDS:
        text = f"the oldest due item has waited for {late:.0f} s"
        yield Finding("workers", "warn", text, "start more workers, or find out what keeps them")
    for kind in stats.paused:
        yield Finding("workers", "warn", f"{kind} is paused", f"{program} resume kind {kind}")
    if failed := stats.total(ItemStatus.FAILED):
        remedy = f"{program} outbox ls --status FAILED"
        yield Finding("workers", "warn", f"{_counted(failed)} failed for good", remedy)

    for kind, states in stats.counts.items():
        number = _waiting_in(states)
        if kinds is not None and kind not in kinds and number:
            text = f"{_counted(number)} of kind {kind}, which has no handler here"
            yield Finding("workers", "warn", text, "add the handler, or cancel them")


def _waiting_in(states: Mapping[str, int]) -> int:
    return sum(states.get(status, 0) for status in WAITING)


def _counted(number: int, noun: str = "item") -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def executor_findings(kernel: Kernel) -> list[Finding]:
    """Report what keeps executors from making calls; their brokers are asked."""
    if not kernel.executors.placements:
        return []
    remedy = "start `automate executor`, or look at the broker; what waits goes on by itself"
    problems = kernel.operations.portal.run(kernel.executors.problems())
    found = [
        Finding("executors", "warn", redact_text(f"{name}: {text}"), remedy)
        for name, texts in problems.items()
        for text in texts
    ]
    names = ", ".join(kernel.executors.placements)
    return found or [Finding("executors", "ok", f"{names}: nothing keeps their tasks")]


def relay_findings(kernel: Kernel) -> list[Finding]:
    """Report what keeps events from going out by relays or coming in; the brokers are asked."""
    portal, found = kernel.operations.portal, list[Finding]()
    lags = kernel.relays.lags(kernel.outbox.stats()) if kernel.relays else {}
    problems = portal.run(kernel.relays.problems()) if lags else {}
    for name, lag in lags.items():
        kind = kernel.relays.routes[name].kind
        remedy = f"look at the broker; what waits goes out by itself: items of the kind {kind}"
        texts = list(problems[name])
        if lag > _LATE_SECONDS:
            texts.append(f"the oldest event has waited for {lag:.0f} s")
        found += [
            Finding("relays", "warn", redact_text(f"{name}: {each}"), remedy) for each in texts
        ]
    if kernel.subscriptions:
        remedy = "look at the broker; what is in it comes in by itself"
        arriving = portal.run(kernel.subscriptions.problems())
        found += [
            Finding("relays", "warn", redact_text(f"{name}: {each}"), remedy)
            for name, texts in arriving.items()
            for each in texts
        ]
    names = ", ".join([*lags, *kernel.subscriptions.arrivals])
    return found or ([Finding("relays", "ok", f"{names}: nothing keeps events")] if names else [])


def findings_of(
    checks: Iterable[tuple[str, Callable[[], list[Finding]]]], *, debug: bool = False
) -> list[Finding]:
    """
    Return the findings of named checks; a check that raises is a finding itself.

    With *debug* an exception that isn't ours is raised on.
    """
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += check()
        except AutomateError as error:
            hint = error.hint and redact_text(error.hint)
            found.append(Finding(name, "fail", redact_text(error.message), hint))
        except Exception as error:
            if debug:
                raise
            # Its text may be anybody's, and hold anything.
            text = redact_text(f"the check itself failed: {raised_at(error)}")
            found.append(Finding(name, "fail", text))
    return found
