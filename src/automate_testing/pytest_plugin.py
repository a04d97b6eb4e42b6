"""
A plugin for pytest: each case of a workflow's test (``order.test.yaml``) is a test.

It is on where a project asks for it, in its top ``conftest.py``::

    pytest_plugins = ["automate_testing.pytest_plugin"]

The ini option ``automate_kernel`` names the function that makes the kernel for a case:
``shop.automation:make_kernel``. Without it the kernel has the installed plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from automate_kernel.base.errors import AutomateError, ConfigError, type_name
from automate_kernel.kernel import Kernel
from automate_kernel.plugins.targets import load_target
from automate_testing.workflows.file import CaseFile, is_case_file, load_case_file

_OPTION = "automate_kernel"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the function of the kernel."""
    parser.addini(_OPTION, "module:function that returns the kernel for a case of a workflow")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect files with cases, and no others."""
    if not is_case_file(file_path):
        return None
    found: pytest.Collector = WorkflowCases.from_parent(parent, path=file_path)
    return found


class WorkflowCases(pytest.File):
    """A file with cases."""

    def collect(self) -> Iterator[WorkflowCase]:
        """Yield an item for each case."""
        try:
            cases = load_case_file(self.path)
        except AutomateError as error:
            raise self.CollectError(str(error)) from None
        make = _maker(self.config.getini(_OPTION))
        for index, case in enumerate(cases.cases):
            yield WorkflowCase.from_parent(
                self, name=case.name, cases=cases, index=index, make=make
            )


def _maker(target: str) -> Callable[[], Kernel]:
    return partial(_made, target) if target else Kernel


def _made(target: str) -> Kernel:
    made = load_target(target)()
    if not isinstance(made, Kernel):
        raise ConfigError(
            f"{_OPTION}: {target} returned {type_name(made)}, not a Kernel",
            hint="name a function that returns a new kernel on MemoryStorage()",
        )
    return made


class CaseFailedError(Exception):
    """A case is otherwise than expected."""


class WorkflowCase(pytest.Item):
    """One case."""

    def __init__(
        self, *, cases: CaseFile, index: int, make: Callable[[], Kernel], **options: Any
    ) -> None:
        super().__init__(**options)
        self._cases = cases
        self._index = index
        self._make = make

    def runtest(self) -> None:
        """Run the case on a kernel of its own."""
        with self._make() as kernel:
            problems = self._cases.run_case(self._index, kernel).problems
        if problems:
            raise CaseFailedError("\n".join(problems))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what is otherwise, and no traceback of ours."""
        if isinstance(excinfo.value, (CaseFailedError, AutomateError)):
            place = self._cases.path
            line = self._cases.lines[self._index]
            return f"{place}:{line}: {self.name}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the place of the case."""
        line = self._cases.lines[self._index]
        return self.path, None if line is None else line - 1, self.name
