"""The workflows: their health, the picture and text of each, its schedules, and a start by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from automate_kernel.base.durations import parse_duration
from automate_kernel.base.errors import AutomateError, PayloadError
from automate_kernel.kernel import Kernel
from automate_kernel.secrets.masking import hide_named
from automate_kernel.storage.values import encode_json, read_json
from automate_kernel.workflows.decide.dry_run import DryRun
from automate_kernel.workflows.definition.document import dump_yaml
from automate_kernel.workflows.definition.graph import describe_trigger, to_svg
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.triggers import EventTrigger
from automate_kernel.workflows.execution import Execution, ExecutionStatus
from automate_kernel.workflows.steer.documents import StoredDocument
from automate_kernel.workflows.store.catalogue import Entry
from automate_pages.comparison import changed_lines
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    sent_text,
)
from automate_pages.formats import (
    MOST,
    ShownValue,
    first_waits_shown,
    shown_json,
    shown_text,
    shown_tree,
)
from automate_pages.lists import read_moment
from automate_pages.schema_form import SchemaField, SchemaForm
from automate_pages.screens.documents import documents_of

_LOOKED = 100
_STRIP = 20
# So many times a backfill from the page fires at most.
_MOST_TIMES = 200
_RUNS = 10


@dataclass(frozen=True, slots=True)
class WorkflowHealth:
    """The outcome of a workflow's last runs, the newest first; times are in seconds."""

    runs: Sequence[Execution] = ()

    @property
    def ended(self) -> list[Execution]:
        """Those that came to an end of their own: COMPLETED or FAILED."""
        ends = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)
        return [each for each in self.runs if each.status in ends]

    @property
    def success(self) -> float | None:
        """The share of those that COMPLETED, in per cent; None before any ended."""
        ended = self.ended
        done = sum(each.status is ExecutionStatus.COMPLETED for each in ended)
        return 100 * done / len(ended) if ended else None

    @property
    def strip(self) -> Sequence[Execution]:
        """The last runs for a strip, the newest at its end."""
        return self.runs[:_STRIP][::-1]

    def percentile(self, share: float) -> float | None:
        """Return the time that so many of the completed runs took at most."""
        times = sorted(
            each.duration_seconds
            for each in self.runs
            if each.status is ExecutionStatus.COMPLETED and each.duration_seconds is not None
        )
        return times[min(len(times) - 1, int(len(times) * share))] if times else None


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A row of the list; *next_at* is when one of its schedules fires."""

    entry: Entry
    triggers: Sequence[str]
    problem: Any
    health: WorkflowHealth
    paused: bool
    next_at: Any = None


def show_list(request: PageRequest) -> PageAnswer:
    """Show the workflows that the user's tenant has, with the outcome of their last runs."""
    kernel, entries = request.kernel, _visible(request)
    search = request.text("q").lower()
    if search:
        entries = [entry for entry in entries if search in entry.workflow.name.lower()]
    latest = _latest(request, entries)
    paused = kernel.workflows.paused()
    upcoming: dict[tuple[str, str | None], Any] = {}
    for each in kernel.schedules.find():
        key = (each.workflow.name, each.tenant_id)
        if each.next_at is not None:
            upcoming[key] = min(each.next_at, upcoming.get(key, each.next_at))
    rows = [
        WorkflowRow(
            entry,
            [describe_trigger(each) for each in entry.workflow.triggers],
            shown_text(kernel, str(entry.error) if entry.error else "", 500),
            health,
            any(
                each.workflow == entry.workflow.name
                and each.tenant_id in (None, request.user.tenant or entry.tenant_id)
                for each in paused
            ),
            upcoming.get((entry.workflow.name, entry.tenant_id)),
        )
        for entry, health in zip(entries, latest, strict=True)
    ]
    broken = [
        (name, shown_text(kernel, str(error), 2_000))
        for (tenant, name), error in kernel.workflows.problems().items()
        if request.user.tenant in (None, tenant)
    ]
    running = {(row.entry.workflow.name, row.entry.tenant_id) for row in rows}
    context = {
        "rows": rows,
        "unreadable": broken,
        "search": request.text("q"),
        "resting": [
            each
            for each in documents_of(request)
            if search in each.name.lower() and (each.name, each.tenant_id) not in running
        ],
        "edits": request.may("edit", "documents") and kernel.documents.running,
    }
    return PageAnswer("workflows.html", "Workflows", context, live=True)


def _latest(request: PageRequest, entries: Sequence[Entry]) -> list[WorkflowHealth]:
    """Read the last runs of some workflows, in one statement for a hundred of them."""
    tenant = request.user.tenant
    names = [(entry.workflow.name, tenant or entry.tenant_id) for entry in entries]
    found = request.kernel.executions.latest(names, limit=_LOOKED)
    return [WorkflowHealth(found[each]) for each in names]


def _visible(request: PageRequest) -> list[Entry]:
    found = [
        entry for entry in request.kernel.workflows.entries()
        if request.user.tenant is None or entry.visible_to(request.user.tenant)
    ]  # fmt: skip
    return sorted(found, key=lambda entry: (entry.workflow.name, entry.tenant_id or ""))


def workflow_names(request: PageRequest) -> list[str]:
    """Return the names of the workflows that the user's tenant has."""
    return sorted({entry.workflow.name for entry in _visible(request)})


def _entry(request: PageRequest, name: str) -> Entry:
    tenant = request.query.get("tenant")
    for entry in _visible(request):
        if entry.workflow.name == name and tenant in (None, entry.tenant_id):
            return entry
    raise PageError(404, f"there is no workflow {name!r}")


@dataclass(frozen=True, slots=True)
class StartForm:
    """The content of the form of a start: its fields, or the payload as text; and a *refusal*."""

    fields: Sequence[SchemaField] = ()
    payload: str = "{}"
    delay: str = ""
    tenant: str = ""
    refusal: str = ""
    dry: DryRun | None = None


def show(request: PageRequest, name: str) -> PageAnswer:
    """Show a workflow: its picture beside its text, its runs and versions, the form to start it."""
    entry = _entry(request, name)
    form = _form(request, entry)
    return _page(request, entry, StartForm(form.blank() if form else ()))


def _form(request: PageRequest, entry: Entry) -> SchemaForm | None:
    """Return the form of the payload; None if nothing is known of it, so that it is JSON."""
    schema = request.kernel.workflows.payload_schema(entry.workflow)
    return SchemaForm(schema) if schema and schema.get("properties") else None


def _page(request: PageRequest, entry: Entry, start: StartForm) -> PageAnswer:
    kernel, workflow = request.kernel, entry.workflow
    (health,) = _latest(request, [entry])
    schema = kernel.workflows.payload_schema(workflow)
    tenant = _steered_tenant(request, entry)
    pauses = [
        each
        for each in kernel.workflows.paused()
        if each.workflow == workflow.name
        and (request.user.tenant is None or each.tenant_id in (None, request.user.tenant))
    ]
    return PageAnswer(
        "workflow.html",
        workflow.name,
        {
            "here": request.url("workflows", workflow.name, tenant=entry.tenant_id or ""),
            "start": start,
            "dry": start.dry and shown_tree(kernel, start.dry.to_json()),
            "dry_problems": [
                shown_text(kernel, each, 500).text
                for each in (start.dry.problems if start.dry else ())
            ],
            "entry": entry,
            "problem": shown_text(kernel, str(entry.error) if entry.error else ""),
            "triggers": [describe_trigger(each) for each in workflow.triggers],
            "graph": to_svg(workflow, styled=False),
            "text": _text(kernel, workflow),
            "schema": shown_json(kernel, schema) if schema else None,
            "chooses_tenant": request.user.tenant is None and entry.tenant_id is None,
            "starts": request.may("start") and entry.error is None,
            "steers": request.may("steer"),
            "times": request.may("steer", "schedules"),
            "pauses": pauses,
            "paused": any(each.tenant_id == tenant for each in pauses),
            "schedules": [] if entry.error else _schedules(request, entry),
            "owns": _owns(request, entry),
            "document": _document(request, entry),
            "edits": request.may("edit", "documents"),
            "polls": _polls(request, entry) if _owns(request, entry) and not entry.error else [],
            "most_times": _MOST_TIMES,
            "health": health,
            "versions": _versions(request, entry, health),
            "runs": health.runs[:_RUNS],
            "waits": first_waits_shown(kernel, health.runs[:_RUNS]),
        },
        crumbs=[PageLink("Workflows", request.url("workflows"))],
        status=422 if start.refusal else 200,
    )


def _document(request: PageRequest, entry: Entry) -> StoredDocument | None:
    """Return the document that *entry* is of, if the user may look into it."""
    found = documents_of(request, entry.workflow.name) if entry.supplied else []
    return next((each for each in found if each.tenant_id == entry.tenant_id), None)


def _text(kernel: Kernel, workflow: Workflow, most: int = MOST) -> ShownValue:
    """Return the text of a definition, without secrets."""
    clean = hide_named(kernel.redactor.redact_value(workflow.to_dict()))
    return shown_text(kernel, dump_yaml(clean), most)


def _steered_tenant(request: PageRequest, entry: Entry) -> str | None:
    """Return the tenant whose executions a pause is about; None for those of all."""
    return entry.tenant_id or request.user.tenant


def _schedules(request: PageRequest, entry: Entry) -> list[Any]:
    found = request.kernel.schedules.find(entry.workflow.name, tenant_id=entry.tenant_id)
    now = request.kernel.outbox.now()
    return [(each, each.upcoming(3, now) if each.paused_at is None else []) for each in found]


def _polls(request: PageRequest, entry: Entry) -> list[Any]:
    triggers = entry.workflow.triggers
    events = [(each.event, entry.tenant_id) for each in triggers if isinstance(each, EventTrigger)]
    found = request.kernel.polls.find(events) if events else []
    return [(each, shown_text(request.kernel, each.error, 300)) for each in found]


@dataclass(frozen=True, slots=True)
class RunVersion:
    """A definition that the last runs had: how many, and how many of them failed."""

    digest: str
    runs: int
    failed: int
    latest: Any
    current: bool


def _versions(request: PageRequest, entry: Entry, health: WorkflowHealth) -> list[RunVersion]:
    current = entry.workflow.hash()
    found: dict[str, list[Execution]] = {current: []}
    for each in health.runs:
        found.setdefault(each.definition_id, []).append(each)
    return [
        RunVersion(
            digest,
            len(runs),
            sum(each.status is ExecutionStatus.FAILED for each in runs),
            runs[0].created_at if runs else None,
            digest == current,
        )
        for digest, runs in found.items()
    ]


def show_version(request: PageRequest, name: str, digest: str) -> PageAnswer:
    """Show a definition that runs have had, with its differences from today's."""
    entry = _entry(request, name)
    (health,) = _latest(request, [entry])
    # Another tenant's workflow may have the same name.
    if digest not in {each.digest for each in _versions(request, entry, health)}:
        raise PageError(404, "none of the last runs had this definition")
    current, then = entry.workflow, _definition(request, entry, digest)
    kernel = request.kernel
    texts = [_text(kernel, each, 200_000).text for each in (then, current)]
    return PageAnswer(
        "version.html",
        f"{name} {digest[:12]}",
        {
            "changes": changed_lines(*texts),
            "then": to_svg(then, styled=False),
            "now": to_svg(current, styled=False),
            "text": shown_text(kernel, texts[0]),
        },
        crumbs=[
            PageLink("Workflows", request.url("workflows")),
            PageLink(name, request.url("workflows", name, tenant=entry.tenant_id or "")),
        ],
    )


def _definition(request: PageRequest, entry: Entry, digest: str) -> Workflow:
    if digest == entry.workflow.hash():
        return entry.workflow
    return request.kernel.executions.definition(digest)


# -- orders ------------------------------------------------------------------------------------


def order(request: PageRequest, name: str) -> PageAnswer | OrderAnswer:
    """Start a workflow, try it without calls, pause it, or steer its schedules."""
    entry, wanted = _entry(request, name), request.form.get("order", "start")
    if wanted in ("start", "dry"):
        request.require("start")
        return _start(request, entry, dry=wanted == "dry")
    here = request.url("workflows", name, tenant=entry.tenant_id or "")
    if wanted in ("pause", "resume"):
        request.require("steer")
        return OrderAnswer(here, *_pause(request, entry, pauses=wanted == "pause"))
    if wanted in _SCHEDULE_DONE and _owns(request, entry):
        request.require(*(("start",) if wanted == "trigger" else ("steer", "schedules")))
        command = getattr(request.kernel.schedules, wanted.removesuffix("_schedule"))
        done = command(name, tenant_id=entry.tenant_id, number=_schedule_number(request))
        leads = request.url("executions", done) if wanted == "trigger" else here
        return OrderAnswer(leads, _SCHEDULE_DONE[wanted])
    if wanted == "backfill" and _owns(request, entry):
        request.require("start")
        return OrderAnswer(here, *_backfill(request, entry))
    if wanted in _POLL_DONE and _owns(request, entry):
        request.require("steer", "schedules")
        return OrderAnswer(here, *_steer_poll(request, entry, wanted))
    raise PageError(400, "there is no such order")


def _backfill(request: PageRequest, entry: Entry) -> tuple[str, Any]:
    """Fire the times of a schedule between two moments of the past."""
    first, last = (read_moment(sent_text(request.form, each)) for each in ("first", "last"))
    if first is None or last is None:
        return "Nothing was begun: give the first and the last time, in UTC.", "warn"
    begun = request.kernel.schedules.backfill(
        entry.workflow.name, first, last, tenant_id=entry.tenant_id,
        number=_schedule_number(request), limit=_MOST_TIMES,
    )  # fmt: skip
    if not begun:
        return "It has no time there that hasn't an execution.", "warn"
    return f"{begun:,} execution{'' if begun == 1 else 's'} begun, for times that had none.", "ok"


def _steer_poll(request: PageRequest, entry: Entry, wanted: str) -> tuple[str, Any]:
    """Pause a poll of the workflow, let it go on, call it now, or start it over."""
    name = sent_text(request.form, "name")
    if name not in {each.name for each, _ in _polls(request, entry)}:
        raise PageError(400, "this workflow listens to no such poll")
    command = getattr(request.kernel.polls, wanted.removesuffix("_poll"))
    words, nothing = _POLL_DONE[wanted]
    done = command(name, tenant_id=entry.tenant_id)
    return (words, "ok") if done else (nothing, "warn")


_SCHEDULE_DONE = {
    "pause_schedule": "It is paused: it fires no more until it is resumed. What runs goes on.",
    "resume_schedule": "It fires again.",
    "trigger": "It has fired: a worker runs the execution.",
}
_POLL_DONE = {
    "pause_poll": ("It is paused: its service is asked no more. It keeps its place.",
                   "It is paused already."),
    "resume_poll": ("It goes on where it was.", "It is not paused."),
    "call_now": ("A worker asks its service now.", "It is paused: resume it first."),
    "start_over": ("It starts over: its next call is its first.", ""),
}  # fmt: skip


def _owns(request: PageRequest, entry: Entry) -> bool:
    """Return True unless the workflow's schedules and polls are those of all tenants together."""
    return request.user.tenant in (None, entry.tenant_id)


def _pause(request: PageRequest, entry: Entry, *, pauses: bool) -> tuple[str, Any]:
    workflows, tenant = request.kernel.workflows, _steered_tenant(request, entry)
    if not pauses:
        done = workflows.resume(entry.workflow.name, tenant_id=tenant)
        return ("Its executions go on.", "ok") if done else ("It is not paused.", "warn")
    reason = sent_text(request.form, "reason")
    done = workflows.pause(entry.workflow.name, reason, tenant_id=tenant)
    words = "It is paused: its executions wait, and new ones with them."
    return (words, "ok") if done else ("It is paused already.", "warn")


def _schedule_number(request: PageRequest) -> int:
    text = request.form.get("number", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PageError(400, "there is no such schedule")
    return int(text)


def _start(request: PageRequest, entry: Entry, *, dry: bool) -> PageAnswer | OrderAnswer:
    kernel, name = request.kernel, entry.workflow.name
    form = _form(request, entry)
    text, delay = request.form.get("payload", "").strip(), sent_text(request.form, "delay")
    tenant = sent_text(request.form, "tenant")
    payload, problems = _payload(request, form, text)
    fields = form.sent(request.form.lists, problems) if form else ()
    sent = StartForm(fields, text, delay, tenant)
    whose = request.user.tenant or entry.tenant_id or tenant or None
    try:
        if problems:
            raise PayloadError(problems.get("", "some fields are not right"))
        encode_json(payload, "payload")
        if dry:
            run = kernel.dry_run(name, payload, tenant_id=whose)
            return _page(request, entry, replace(sent, dry=run))
        begun = kernel.start(name, payload, tenant_id=whose, delay=_seconds(delay))
    except AutomateError as error:
        # Not by an address, which a log of accesses keeps: a payload may hold a secret.
        refusal = shown_text(kernel, str(error), 2_000).text
        return _page(request, entry, replace(sent, refusal=refusal))
    return OrderAnswer(request.url("executions", begun), "It is started.")


def _payload(
    request: PageRequest, form: SchemaForm | None, text: str
) -> tuple[Any, Mapping[str, str]]:
    """Return the payload that was sent, and the problems of its fields; "" is the whole."""
    if form is not None:
        return form.read(request.form.lists)
    try:
        return (read_json(text) if text else None), {}
    except ValueError as error:
        return None, {"": f"the payload is not JSON ({error})"}


def _seconds(delay: str) -> float:
    try:
        return parse_duration(delay) if delay else 0.0
    except ValueError as error:
        raise PayloadError(f"the delay can't be read: {error}") from None
