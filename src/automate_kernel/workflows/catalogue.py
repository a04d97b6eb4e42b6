"""The workflows of a kernel, by name, and the compiled ones that executions are pinned to."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from automate_kernel.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    WorkflowError,
    did_you_mean,
)
from automate_kernel.logs import get_logger
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.execution import Event
from automate_kernel.workflows.engine.program import Program, Templates
from automate_kernel.workflows.engine.schedule import require_cron

__all__ = [
    "EVERYBODY",
    "BrokenProgram",
    "Catalogue",
    "Entry",
    "Everybody",
    "Startable",
    "SuppliedWorkflow",
    "Supply",
    "WorkflowSource",
]


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
    Where a host keeps workflows that change while it runs: its database, say.

    Both methods may be called from any thread, inside a transaction of the host or outside. What
    they raise reaches whoever asked for a workflow: an event is then tried again later, since to
    go on without its workflows would lose it.
    """

    def stamp(self) -> object:
        """A value that differs whenever `load` would give something else. It must be cheap."""

    def load(self) -> Iterable[SuppliedWorkflow]:
        """All that are switched on."""


class Startable(Protocol):
    """A workflow that events may start."""

    @property
    def workflow(self) -> Workflow:
        """Its definition."""

    def starts_on(self, event: Event) -> bool:
        """Whether *event* starts it; raises `AutomateError` if that can't be told."""


@dataclass(frozen=True, slots=True)
class BrokenProgram:
    """
    A workflow that can't run, in the place of one that can.

    An event that it listens to is not done with: it fails, and starts the workflow once that is
    mended and the event put back.
    """

    workflow: Workflow
    error: AutomateError

    def starts_on(self, event: Event) -> bool:
        """Raise what is wrong with the workflow."""
        raise self.error


@dataclass(frozen=True, slots=True)
class Entry:
    """A workflow that is known now: whose it is (None: everybody's), and where it comes from."""

    program: Startable
    tenant_id: str | None = None
    supplied: bool = False

    @property
    def workflow(self) -> Workflow:
        """Its definition."""
        return self.program.workflow

    @property
    def error(self) -> AutomateError | None:
        """Why it can't run, or None."""
        return self.program.error if isinstance(self.program, BrokenProgram) else None

    def visible_to(self, tenant_id: str | None) -> bool:
        """Whether it is this tenant's, or everybody's."""
        return self.tenant_id is None or self.tenant_id == tenant_id


@dataclass(slots=True)
class Supply:
    """What a source gave at *stamp*: entries by tenant and name, and what was wrong with others."""

    stamp: object = None
    entries: dict[tuple[str | None, str], Entry] = field(default_factory=dict)
    problems: dict[tuple[str | None, str], AutomateError] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        source: WorkflowSource,
        compile: Callable[[Workflow], Startable],
        taken: Callable[[str], bool],
    ) -> Supply:
        """
        Ask *source*; one bad definition holds up no other.

        *compile* makes a workflow ready, and *taken* tells which names the host's own workflows
        have: these come first, and a supplied one of that name is a problem.
        """
        supply = cls(source.stamp())  # before the rest: what changes meanwhile is seen next time
        loaded = list(source.load())
        common = {one.name for one in loaded if one.tenant_id is None}
        for one in loaded:
            key = (one.tenant_id, one.name)
            if taken(one.name) or (one.tenant_id is not None and one.name in common):
                supply.problems[key] = WorkflowError(
                    f"another workflow is called {one.name!r}", hint="rename one of them"
                )
                continue
            try:
                workflow = Workflow.from_dict({**one.definition, "name": one.name})
            except ValidationError as error:
                supply.problems[key] = _unreadable(one.name, error)
                continue
            try:
                program = compile(workflow)
            except AutomateError as error:
                supply.problems[key] = error
                program = BrokenProgram(workflow, error)
            supply.entries[key] = Entry(program, one.tenant_id, supplied=True)
        return supply


def _unreadable(name: str, error: ValidationError) -> WorkflowError:
    # Of a version that knew other fields: nobody can have saved it with this one.
    return WorkflowError(
        f"workflow {name!r} can't be read: {error.error_count()} fields are not as they must be",
        hint="open it, mend what is marked, and save it",
    )


logger: logging.Logger = get_logger(__name__)
_KEPT = 500


class Everybody(Enum):
    """In the place of a tenant's id: the workflows of all tenants."""

    EVERYBODY = "everybody"


EVERYBODY = Everybody.EVERYBODY


class Catalogue:
    """
    Workflows by name. An execution that began with another version gets that one, from *stored*.

    Beside those that are added there are those of *source*, which is asked at most every
    *check_seconds* whether they have changed. Some of them may be one tenant's own: these are
    found with that tenant's id alone.
    """

    def __init__(
        self,
        templates: Templates,
        context: Any,
        stored: Callable[[str], Workflow],
        source: WorkflowSource | None = None,
        *,
        check_seconds: float = 1.0,
    ) -> None:
        self._templates = templates
        self._context = context
        self._stored = stored
        self._current: dict[str, Program] = {}
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._lock = threading.Lock()
        self._source = source
        self._check_seconds = check_seconds
        self._supply = Supply()
        self._supplied = False
        self._check_at = 0.0
        self._checking = threading.Lock()

    def __iter__(self) -> Iterator[Workflow]:
        return iter([entry.workflow for entry in self.entries(tenant_id=None)])

    def __len__(self) -> int:
        return len(self.entries(tenant_id=None))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name, None) is not None

    def __getitem__(self, name: str) -> Workflow:
        """The workflow called *name* that is everybody's; raises ``NOT_FOUND``."""
        return self.get(name)

    def get(self, name: str, tenant_id: str | None = None) -> Workflow:
        """
        The workflow called *name*, one of the tenant's own too; raises ``NOT_FOUND``.

        Raises what is wrong with it, if it can't run.
        """
        entry = self._find(name, tenant_id)
        if entry is None:
            names = sorted(one.workflow.name for one in self.entries(tenant_id=tenant_id))
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"there is no workflow {name!r}",
                hint=did_you_mean(name, names, also=f"there are: {', '.join(names) or 'none'}"),
            )
        if entry.error is not None:
            raise entry.error
        return entry.workflow

    def entries(self, *, tenant_id: str | Everybody | None = EVERYBODY) -> list[Entry]:
        """
        The workflows with where they come from: all, or those that a tenant may see.

        None as the tenant means those that belong to none.
        """
        supply = self._fresh()
        own = [Entry(program) for program in list(self._current.values())]
        found = [*own, *supply.entries.values()]
        if isinstance(tenant_id, Everybody):
            return found
        return [entry for entry in found if entry.visible_to(tenant_id)]

    def problems(self) -> dict[tuple[str | None, str], AutomateError]:
        """What is wrong with workflows of the source, by tenant and name."""
        return dict(self._fresh().problems)

    def added(self) -> list[Workflow]:
        """Those of files and code, which no source can take the name of."""
        return [program.workflow for program in list(self._current.values())]

    @property
    def changing(self) -> bool:
        """Whether workflows may come that are not here yet."""
        return self._source is not None

    def look_again(self) -> None:
        """Ask the source at the next use, for a host that knows that it has changed."""
        self._check_at = 0.0

    def _find(self, name: str, tenant_id: str | None) -> Entry | None:
        if name in self._current:
            return Entry(self._current[name])
        entries = self._fresh().entries
        return entries.get((tenant_id, name)) or entries.get((None, name))

    def _fresh(self) -> Supply:
        """What the source has, as of a second ago at most."""
        if self._source is None or time.monotonic() < self._check_at:
            return self._supply
        # One thread asks; the others go on with what is known, if anything is.
        if not self._checking.acquire(blocking=not self._supplied):
            return self._supply
        try:
            if time.monotonic() >= self._check_at:
                self._ask(self._source)
        finally:
            self._checking.release()
        return self._supply

    def _ask(self, source: WorkflowSource) -> None:
        started = time.monotonic()
        if not self._supplied or source.stamp() != self._supply.stamp:
            supply = Supply.read(source, self._compiled, self._current.__contains__)
            for key, error in supply.problems.items():
                if str(self._supply.problems.get(key)) != str(error):
                    logger.error("workflow %r can't run: %s", key[1], error)
            self._supply, self._supplied = supply, True
        self._check_at = started + self._check_seconds

    def _compiled(self, workflow: Workflow) -> Program:
        """The compiled form of *workflow*, made once."""
        digest = workflow.hash()
        with self._lock:
            found = self._programs.get(digest)
        if found is None:
            _require_schedule(workflow)
            found = Program(workflow, self._templates, self._context)
            self._keep(digest, found)
        return found

    def _keep(self, definition_id: str, program: Program) -> None:
        with self._lock:
            self._programs[definition_id] = program
            while len(self._programs) > _KEPT:
                self._programs.popitem(last=False)

    def add(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> list[Workflow]:
        """Add a workflow, a definition, or those of a file or folder; returns them."""
        added = list(self._read(workflow))
        for one in added:
            _require_schedule(one)
        programs = [Program(one, self._templates, self._context) for one in added]
        for program in programs:
            name = program.workflow.name
            known = self._current.get(name)
            if known is not None and known.workflow.hash() != program.workflow.hash():
                raise WorkflowError(
                    f"there are two workflows called {name!r}", hint="rename one of them"
                )
        with self._lock:
            for program in programs:
                self._current[program.workflow.name] = program
                self._programs[program.workflow.hash()] = program
            self._supplied = False  # its names may be among the source's
        self.look_again()
        return added

    def _read(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> Iterable[Workflow]:
        if isinstance(workflow, Workflow):
            return [workflow]
        from automate_kernel.workflows.definition.loader import load_workflow, load_workflows

        if isinstance(workflow, Mapping):
            return [load_workflow(workflow, check=self.check)]
        return load_workflows(workflow, check=self.check)

    def check(self, text: str, field: str) -> None:
        """Check the syntax of one text of a definition; see `automate_kernel.workflows.Check`."""
        if field.endswith(".if") or field == "if":
            self._templates.condition(text, field)
        else:
            self._templates.compile(text, field)

    def listening(self, event: Event) -> list[Startable]:
        """The current workflows that *event* starts if their condition holds."""
        supplied = self._fresh().entries.values()
        programs: list[Startable] = list(self._current.values())
        programs += [one.program for one in supplied if one.visible_to(event.tenant_id)]
        return [program for program in programs if program.workflow.triggers_for(event)]

    def program(self, definition_id: str) -> Program:
        """The compiled workflow of a stored definition."""
        with self._lock:
            found = self._programs.get(definition_id)
            if found is not None:
                self._programs.move_to_end(definition_id)
                return found
        program = Program(self._stored(definition_id), self._templates, self._context)
        self._keep(definition_id, program)
        return program


def _require_schedule(workflow: Workflow) -> None:
    # Here and not in the definition: an execution that was started goes on where cron lines can't
    # be read, but a workflow that would never fire isn't taken.
    if any(getattr(trigger, "cron", None) for trigger in workflow.triggers):
        try:
            require_cron()
        except ConfigError as error:
            raise WorkflowError(
                f"workflow {workflow.name!r}: {error.message}", hint=error.hint
            ) from None
