"""Workflows that are built in a Python file."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from automate_kernel.errors import WorkflowError
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.problems import Finding, invalid, problems_of, show_path

__all__ = ["workflows_in"]


def workflows_in(path: Path) -> list[Workflow]:
    """
    What the file's module-level ``workflow``, or list of ``workflows``, holds.

    Executes the file. Raises `WorkflowError` with the line that failed.
    """
    module = _execute(path)
    found = getattr(module, "workflows", None)
    if found is None:
        found = [module.workflow] if hasattr(module, "workflow") else None
    if found is None:
        raise WorkflowError(
            f"{path} holds no workflow",
            hint="assign a Workflow to the name 'workflow', or a list of them to 'workflows'",
        )
    workflows = list(found) if isinstance(found, (list, tuple)) else [found]
    for each in workflows:
        if not isinstance(each, Workflow):
            raise WorkflowError(
                f"{path}: {type(each).__name__} is not a Workflow",
                hint="build it with automate_kernel.workflows.Workflow",
            )
    return workflows


def _execute(path: Path) -> ModuleType:
    # A name of its own: two files called orders.py must not share a module.
    digest = sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"_automate_workflow_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkflowError(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their own module up
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise _named(error, path) from None
    except SyntaxError as error:
        findings = [Finding(str(path), error.lineno, "", f"is not Python: {error.msg}", None)]
        raise invalid(findings, str(path)) from None
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__} while the file was executed"
        findings = [Finding(str(path), _line(error, path), "", message, str(error) or None)]
        raise invalid(findings, str(path)) from error
    finally:
        sys.modules.pop(name, None)
    return module


def _named(error: ValidationError, path: Path) -> WorkflowError:
    line = _line(error, path)
    findings = [
        Finding(str(path), line, f"{error.title}({show_path(p.path)})", p.message, p.hint)
        for p in problems_of(error, {})
    ]
    return invalid(findings, str(path))


def _line(error: BaseException, path: Path) -> int | None:
    """The last line of the file itself that was being executed."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
