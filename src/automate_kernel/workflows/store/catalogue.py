"""The workflows of a kernel: those added, and those of a source that changes while it runs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from automate_kernel.base import runtime
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    UnknownHereError,
    WorkflowError,
    did_you_mean,
    type_name,
)
from automate_kernel.base.forks import new_lock
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.rows import Storage
from automate_kernel.templates import TemplateEngine
from automate_kernel.workflows.code.workflow import WorkflowFunction
from automate_kernel.workflows.decide.admission import Admission
from automate_kernel.workflows.decide.program import BuildContext, WorkflowProgram
from automate_kernel.workflows.decide.replay import CodeProgram, HostOperations
from automate_kernel.workflows.definition.model import CodeWorkflow, Workflow
from automate_kernel.workflows.definition.triggers import EventTrigger, Trigger, require_cron
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.store.pauses import PausedWorkflow, WorkflowPauses
from automate_kernel.workflows.store.stored import stored_workflow

__all__ = ["ALL_TENANTS", "AllTenants", "Catalogue", "Entry", "SuppliedWorkflow", "WorkflowSource"]

logger: logging.Logger = get_logger(__name__)

# So many compiled definitions are kept, the last used ones.
_KEPT = 500
_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppliedWorkflow:
    """
    A workflow of a source: its *definition* as `Workflow.to_dict` gives it.

    With a *tenant_id* it starts on events of that tenant alone, and nobody else sees it.
    """

    name: str
    definition: Mapping[str, Any]
    tenant_id: str | None = None


class WorkflowSource(Protocol):
    """
    A source of workflows that change while the application runs: its database, say.

    Both methods may be called from any thread, inside a transaction of the host or outside. Their
    errors reach the caller that asked for a workflow. An event is then tried again later, since to
    go on without its workflows would lose it.
    """

    def stamp(self) -> object:
        """Return a value that changes whenever the result of `load` does. It must be cheap."""

    def load(self) -> Iterable[SuppliedWorkflow]:
        """Return all workflows that are switched on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    A workflow that is known now: its tenant (None: everybody's), and if a source supplied it.

    *program* is its compiled form, or the reason why it can't run.
    """

    workflow: Workflow
    program: WorkflowProgram | AutomateError
    tenant_id: str | None = None
    supplied: bool = False

    @property
    def error(self) -> AutomateError | None:
        """The reason why it can't run, or None."""
        return self.program if isinstance(self.program, AutomateError) else None

    def starts_on(self, event: Event) -> bool:
        """
        Return True if *event* starts it; raises `AutomateError` if that can't be decided.

        An event that a broken workflow listens to fails. Once the workflow is mended and the event
        requeued, the event starts it.
        """
        if isinstance(self.program, AutomateError):
            raise self.program
        return self.program.starts_on(event)

    def admission(self, event: Event) -> Admission | None:
        """Return the conditions on a start for *event*; raises `AutomateError` if it can't run."""
        if isinstance(self.program, AutomateError):
            raise self.program
        return self.program.admission(event)

    def visible_to(self, tenant_id: str | None) -> bool:
        """Return True if it is this tenant's, or everybody's."""
        return self.tenant_id is None or self.tenant_id == tenant_id


@dataclass(slots=True)
class _SourceState:
    """The workflows of a source at *stamp*, by tenant and name, and the errors of the others."""

    stamp: object = None
    entries: dict[tuple[str | None, str], Entry] = field(default_factory=dict)
    problems: dict[tuple[str | None, str], AutomateError] = field(default_factory=dict)


def _definition_of(supplied: SuppliedWorkflow) -> Workflow:
    try:
        return Workflow.from_dict({**supplied.definition, "name": supplied.name})
    except ValidationError as error:
        # Saved by a version with other fields: this version refuses to save such a definition.
        wrong = f"{error.error_count()} fields are not as they must be"
        raise WorkflowError(
            f"workflow {supplied.name!r} can't be read: {wrong}",
            hint="open it, mend what is marked, and save it",
        ) from None


class AllTenants(Enum):
    """The type of `ALL_TENANTS`."""

    ALL_TENANTS = "all"


ALL_TENANTS = AllTenants.ALL_TENANTS
"""In the place of a tenant's id: the workflows of all tenants."""


class Catalogue:
    """
    Workflows by name, and compiled definitions for executions that began with another version.

    Such a definition is read from *storage*, which the *pauses* of workflows are in too. *source*
    is asked at most once a second whether its workflows have changed. A workflow of one tenant is
    found with that tenant's id alone. Workflows in code need the *operations*.
    """

    def __init__(
        self,
        templates: TemplateEngine,
        context: BuildContext,
        storage: Storage,
        pauses: WorkflowPauses,
        source: WorkflowSource | None = None,
        operations: HostOperations | None = None,
    ) -> None:
        self._templates = templates
        self._context = context
        self._storage = storage
        self.pauses: WorkflowPauses = pauses
        """The workflows of which no execution goes on."""
        self._operations = operations
        self._functions: dict[tuple[str, int], WorkflowFunction] = {}
        self._current: dict[str, WorkflowProgram] = {}
        self._programs: OrderedDict[str, WorkflowProgram] = OrderedDict()
        self._lock = new_lock()
        self.source: WorkflowSource | None = source
        """The source of workflows that change while the application runs."""
        self._supplied = _SourceState()
        self._is_read = False
        self._check_at = 0.0
        self._checking = new_lock()
        self._marks: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Workflow]:
        return (entry.workflow for entry in self.entries(tenant_id=None))

    def __len__(self) -> int:
        return len(self.entries(tenant_id=None))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name, None) is not None

    def __getitem__(self, name: str) -> Workflow:
        """Return everybody's workflow called *name*, as `get` does."""
        return self.get(name)

    def get(self, name: str, tenant_id: str | None = None) -> Workflow:
        """
        Return everybody's or the tenant's workflow called *name*; raises ``NOT_FOUND``.

        If it can't run, the reason is raised.
        """
        entry = self._find(name, tenant_id)
        if entry is None:
            names = sorted(one.workflow.name for one in self.entries(tenant_id=tenant_id))
            raise UnknownHereError(
                f"there is no workflow {name!r}",
                reason="UNKNOWN_WORKFLOW",
                hint=did_you_mean(name, names, also=f"there are: {', '.join(names) or 'none'}"),
            )
        if entry.error is not None:
            raise entry.error
        return entry.workflow

    def entries(self, *, tenant_id: str | AllTenants | None = ALL_TENANTS) -> list[Entry]:
        """
        List the workflows with their origins: all, or those that a tenant may see.

        None as the tenant means those that belong to no tenant.
        """
        supplied = self._fresh().entries.values()
        found = [*(Entry(one.workflow, one) for one in list(self._current.values())), *supplied]
        if isinstance(tenant_id, AllTenants):
            return found
        return [entry for entry in found if entry.visible_to(tenant_id)]

    def problems(self) -> dict[tuple[str | None, str], AutomateError]:
        """Return the errors of the source's workflows, by tenant and name."""
        return dict(self._fresh().problems)

    def marks(self) -> tuple[str, ...]:
        """
        Return a mark for each workflow of files and code that events start, sorted.

        It changes with the workflow's name and triggers. What a source supplies is the same for all
        workers.
        """
        marks = self._marks
        if marks is None:
            with self._lock:  # none is added meanwhile
                marks = self._marks = tuple(sorted(filter(None, map(_mark, self.added()))))
        return marks

    def added(self) -> list[Workflow]:
        """List the workflows of files and code; a source can't take their names."""
        return [program.workflow for program in list(self._current.values())]

    @property
    def changing(self) -> bool:
        """Return True if more workflows may come while the application runs."""
        return self.source is not None

    def look_again(self) -> None:
        """Ask the source at the next use; for an application that knows of a change."""
        self._check_at = 0.0

    def _find(self, name: str, tenant_id: str | None) -> Entry | None:
        own = self._current.get(name)
        if own is not None:
            return Entry(own.workflow, own)
        entries = self._fresh().entries
        return entries.get((tenant_id, name)) or entries.get((None, name))

    def _fresh(self) -> _SourceState:
        """Return the source's workflows, as of a second ago at most."""
        if self.source is None or runtime.monotonic() < self._check_at:
            return self._supplied
        # One thread asks; the others go on with the last state, if there is one.
        if not self._checking.acquire(blocking=not self._is_read):
            return self._supplied
        try:
            if runtime.monotonic() >= self._check_at:
                self._ask(self.source)
        finally:
            self._checking.release()
        return self._supplied

    def _ask(self, source: WorkflowSource) -> None:
        started = runtime.monotonic()
        if not self._is_read or source.stamp() != self._supplied.stamp:
            state = self._read_source(source)
            for key, error in state.problems.items():
                if str(self._supplied.problems.get(key)) != str(error):
                    logger.error("workflow %r can't run: %s", key[1], error)
            self._supplied, self._is_read = state, True
        self._check_at = started + _CHECK_SECONDS

    def _read_source(self, source: WorkflowSource) -> _SourceState:
        """Read *source*: one bad definition holds up no other, and names of our own come first."""
        state = _SourceState(source.stamp())  # before the rest: later changes are seen next time
        loaded = list(source.load())
        common = {one.name for one in loaded if one.tenant_id is None}
        for one in loaded:
            key, workflow = (one.tenant_id, one.name), None
            try:
                if one.name in self._current or (one.tenant_id is not None and one.name in common):
                    message = f"another workflow is called {one.name!r}"
                    raise WorkflowError(message, hint="rename one of them")
                workflow = _definition_of(one)
                program: WorkflowProgram | AutomateError = self._compiled(workflow)
            except AutomateError as error:
                state.problems[key] = program = error
            if workflow is not None:
                state.entries[key] = Entry(workflow, program, one.tenant_id, supplied=True)
        return state

    # -- pauses ------------------------------------------------------------------------------

    def pause(self, name: str, reason: str = "", *, tenant_id: str | None = None) -> bool:
        """
        Let no step of a workflow begin until `resume`; return False if it is paused already.

        What runs ends and is saved. Events still start executions, which wait. With *tenant_id*
        only this tenant's executions wait.
        """
        return self.pauses.pause(name, reason, tenant_id=tenant_id)

    def resume(self, name: str, *, tenant_id: str | None = None) -> bool:
        """Let the executions of a paused workflow go on; return False if it was not paused."""
        return self.pauses.resume(name, tenant_id=tenant_id)

    def paused(self, *, tenant_id: str | None = None) -> list[PausedWorkflow]:
        """List the paused workflows by name; with *tenant_id* those that are for this tenant."""
        return self.pauses.paused(tenant_id=tenant_id)

    def _compiled(self, workflow: Workflow) -> WorkflowProgram:
        """Return the compiled form of *workflow*, made once."""
        return self._kept(workflow.hash(), lambda _: _schedulable(workflow))

    def add(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> list[Workflow]:
        """Add a workflow, a definition, or those of a file or folder; return them."""
        added = [_schedulable(one) for one in self._read(workflow)]
        programs = [self._program_of(one) for one in added]
        for one in added:
            known = self._current.get(one.name)
            if known is not None and known.workflow.hash() != one.hash():
                message = f"there are two workflows called {one.name!r}"
                raise WorkflowError(message, hint="rename one of them")
        with self._lock:
            for program in programs:
                self._current[program.workflow.name] = program
                self._programs[program.workflow.hash()] = program
            self._is_read = False  # its names may be among the source's
            self._marks = None
        self.look_again()
        return added

    def add_function(self, function: WorkflowFunction) -> None:
        """
        Add a workflow in code.

        Of several versions the newest begins executions; the others go on with theirs.
        """
        definition = function.definition
        known = self._functions.setdefault((definition.name, definition.version), function)
        if known.function is not function.function:
            raise WorkflowError(
                f"there are two workflows called {definition.name!r}",
                hint="rename one of them, or give the newer one a higher version=",
            )
        current = self._current.get(definition.name)
        if current is not None and isinstance(current.workflow, CodeWorkflow):
            if current.workflow.version > definition.version:
                return
            with self._lock:
                del self._current[definition.name]
        self.add(definition)

    def function(self, function: Callable[..., Any]) -> WorkflowFunction | None:
        """Return the workflow that was made of *function*, or None."""
        found = (one for one in self._functions.values() if one.function == function)
        return next(found, None)

    def payload_schema(self, workflow: Workflow) -> dict[str, Any] | None:
        """
        Return the JSON Schema of the payload that *workflow* takes, or None if nothing is known.

        It is known of a workflow in code whose function has a typed parameter for it.
        """
        if not isinstance(workflow, CodeWorkflow):
            return None
        function = self._functions.get((workflow.name, workflow.version))
        return None if function is None else function.payload_schema()

    def _program_of(self, workflow: Workflow) -> WorkflowProgram:
        if not isinstance(workflow, CodeWorkflow):
            return WorkflowProgram(workflow, self._templates, self._context)
        function = self._functions.get((workflow.name, workflow.version))
        if function is None or self._operations is None:
            raise UnknownHereError(
                f"has no code for version {workflow.version} of workflow {workflow.name!r}",
                reason="UNKNOWN_CODE",
                hint=f"import {workflow.code.partition(':')[0]}, or keep the function of the"
                " version for as long as executions go on with it",
            )
        own = function if function.definition == workflow else function.defined_as(workflow)
        return CodeProgram(own, self._templates, self._context, self._operations, self.function)

    def _read(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> Iterable[Workflow]:
        from automate_kernel.workflows.definition.loader import (
            check_workflow,
            load_workflow,
            load_workflows,
        )

        if isinstance(workflow, Workflow):
            check_workflow(workflow)
            return [workflow]
        if isinstance(workflow, Mapping):
            return [load_workflow(workflow, check=self.check)]
        if not isinstance(workflow, (str, Path)):
            raise WorkflowError(
                f"a workflow can't be {type_name(workflow)}",
                hint="give a Workflow, a definition, or the path of a file or folder",
            )
        return load_workflows(workflow, check=self.check)

    def check(self, text: str, field: str) -> None:
        """Check the syntax of one text of a definition; see `Check` of the loader."""
        if field.endswith(".if") or field == "if":
            self._templates.condition(text, field)
        else:
            self._templates.compile(text, field)

    def pulls(self, workflow: Workflow, trigger: Trigger, event: Event) -> bool:
        """Return True if the ``if`` of a trigger of *workflow* lets *event* start it."""
        return self._compiled(workflow).pulls(trigger, event)

    def admission(self, workflow: Workflow, event: Event) -> Admission | None:
        """Return the conditions of *workflow* on a start for *event*, if it has any."""
        return self._compiled(workflow).admission(event)

    def labels(self, workflow: Workflow, event: Event) -> dict[str, str]:
        """Return the labels that *workflow* gives an execution that *event* starts."""
        return self._compiled(workflow).labels(event)

    def listening(self, event: Event) -> list[Entry]:
        """List the current workflows that *event* starts if their condition holds."""
        entries = self.entries(tenant_id=event.tenant_id)
        return [entry for entry in entries if entry.workflow.triggers_for(event)]

    def events(self) -> Iterator[tuple[str, str | None]]:
        """Yield the names and patterns of events that workflows start on, each with its tenant."""
        for entry in self.entries():
            for trigger in entry.workflow.triggers:
                if isinstance(trigger, EventTrigger):
                    yield trigger.event, entry.tenant_id

    def awaited_in_code(self, name: str) -> set[tuple[str, str]]:
        """Return the events that the workflow in code called *name* waits for, in any version."""
        its = [each for key, each in list(self._functions.items()) if key[0] == name]
        return {awaited for each in its for awaited in each.definition.awaited}

    def program(self, definition_id: str) -> WorkflowProgram:
        """Return the compiled workflow of a stored definition."""
        return self._kept(definition_id, self.stored)

    def stored(self, definition_id: str) -> Workflow:
        """Read the definition that an execution is pinned to."""
        with self._storage.begin(atomic=False) as rows:
            return stored_workflow(rows, definition_id)

    def _kept(self, definition_id: str, read: Callable[[str], Workflow]) -> WorkflowProgram:
        with self._lock:
            found = self._programs.get(definition_id)
            if found is not None:
                self._programs.move_to_end(definition_id)
                return found
        program = self._program_of(read(definition_id))
        with self._lock:
            self._programs[definition_id] = program
            while len(self._programs) > _KEPT:
                self._programs.popitem(last=False)
        return program


def _mark(workflow: Workflow) -> str:
    triggers = [
        trigger.model_dump(mode="json", by_alias=True)
        for trigger in workflow.triggers
        if trigger.type in ("event", "webhook")
    ]
    if not triggers:
        return ""
    text = json.dumps([workflow.name, triggers], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _schedulable(workflow: Workflow) -> Workflow:
    """Return *workflow*, if its cron lines can be read."""
    # Here and not in the definition: an execution goes on where cron lines can't be read, but a
    # workflow that would never fire is refused.
    if any(getattr(trigger, "cron", None) for trigger in workflow.triggers):
        try:
            require_cron()
        except ConfigError as error:
            message = f"workflow {workflow.name!r}: {error.message}"
            raise WorkflowError(message, hint=error.hint) from None
    return workflow
