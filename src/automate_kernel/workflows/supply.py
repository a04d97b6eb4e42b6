"""
Workflows that a host keeps elsewhere than in files, and changes while the kernel runs.

The host gives the kernel a `WorkflowSource`; the kernel asks it, about once a second and only when
it needs to know, whether something has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from automate_kernel.errors import AutomateError, WorkflowError
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.model import Workflow

__all__ = ["BrokenProgram", "Entry", "Startable", "SuppliedWorkflow", "Supply", "WorkflowSource"]


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
