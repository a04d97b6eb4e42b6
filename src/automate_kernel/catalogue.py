"""The workflows of a kernel, by name, and the compiled ones that executions are pinned to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from automate_kernel.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.program import Program, Templates

__all__ = ["Catalogue"]

_KEPT = 500


class Catalogue:
    """
    Workflows by name. An execution that began with another version gets that one, from *stored*.
    """

    def __init__(
        self, templates: Templates, context: Any, stored: Callable[[str], Workflow]
    ) -> None:
        self._templates = templates
        self._context = context
        self._stored = stored
        self._current: dict[str, Program] = {}
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Workflow]:
        return iter([program.workflow for program in list(self._current.values())])

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, name: object) -> bool:
        return name in self._current

    def __getitem__(self, name: str) -> Workflow:
        """The workflow called *name*; raises ``NOT_FOUND``."""
        if name not in self._current:
            close = get_close_matches(name, self._current, n=1)
            known = ", ".join(sorted(self._current)) or "none"
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"there is no workflow {name!r}",
                hint=(f"did you mean {close[0]!r}? " if close else "") + f"there are: {known}",
            )
        return self._current[name].workflow

    def add(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> list[Workflow]:
        """Add a workflow, a definition, or those of a file or folder; returns them."""
        added = list(self._read(workflow))
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
        return added

    def _read(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> Iterable[Workflow]:
        if isinstance(workflow, Workflow):
            return [workflow]
        from automate_kernel.workflows.loader import load_workflow, load_workflows

        if isinstance(workflow, Mapping):
            return [load_workflow(workflow, check=self.check)]
        return load_workflows(workflow, check=self.check)

    def check(self, text: str, field: str) -> None:
        """Check the syntax of one text of a definition; see `automate_kernel.workflows.Check`."""
        if field.endswith(".if") or field == "if":
            self._templates.condition(text, field)
        else:
            self._templates.compile(text, field)

    def listening(self, event: Event) -> list[Program]:
        """The current workflows that *event* starts if their condition holds."""
        current = list(self._current.values())
        return [program for program in current if program.workflow.triggers_for(event)]

    def program(self, definition_id: str) -> Program:
        """The compiled workflow of a stored definition."""
        with self._lock:
            found = self._programs.get(definition_id)
            if found is not None:
                self._programs.move_to_end(definition_id)
                return found
        program = Program(self._stored(definition_id), self._templates, self._context)
        with self._lock:
            self._programs[definition_id] = program
            while len(self._programs) > _KEPT:
                self._programs.popitem(last=False)
        return program
