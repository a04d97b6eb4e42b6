"""Targets (``module:Name``): imported at first use, and explained where that fails."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from automate_kernel.base.errors import PluginError, did_you_mean
from automate_kernel.plugins.compatibility import extra_with


class StillImportingError(PluginError):
    """A plugin was asked for while its module is being imported."""


def normal_target(target: str, *, announced: bool = False) -> str:
    """
    Return *target* as ``module:Name``. Settings may write ``module.Name``.

    In an entry point (*announced*) what has no colon is a module; an ``[extra]`` is dropped.
    """
    target = target.partition("[")[0].replace(" ", "")
    if ":" not in target and "." in target and not announced:
        module, _, name = target.rpartition(".")
        return f"{module}:{name}"
    return target


def target_of(thing: Any) -> str:
    """Return the target that names *thing*, a class, a function or a module."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    which = "" if named is thing else f" object at {id(thing):#x}"  # two of a class are two plugins
    module = getattr(named, "__module__", None) or "builtins"
    return f"{module}:{named.__qualname__}{which}"


def load_target(target: str) -> Any:
    """
    Import and return the object that *target* (``module:Name``, or a module) names.

    No lock of ours is held meanwhile. The import system has its own, finds deadlocks between
    them, and gives every thread the same module.
    """
    module_name, _, path = target.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise PluginError(f"{target!r} is no target", hint="write it as package.module:Name")
    module = import_module(module_name)
    found: Any = module
    for name in path.split(".") if path else ():
        found = _part(found, name, module)
    return found


def _part(owner: Any, name: str, module: ModuleType) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    if is_being_imported(module.__name__):
        raise StillImportingError(
            f"{name!r} of {module.__name__!r} was asked for while that is being imported",
            hint="ask for plugins inside functions, not at the top level of a module",
        )
    if owner is module and hasattr(module, "__path__"):
        submodule = f"{module.__name__}.{name}"
        if name.isidentifier() and find_spec(submodule) is not None:
            return import_module(submodule)
    problem = f"{module.__name__!r} has no {name!r}"
    raise AttributeError("; ".join(filter(None, (problem, did_you_mean(name, dir(owner))))))


def is_being_imported(target: str) -> bool:
    """Return True while some thread runs the top level of the module of *target*."""
    module = sys.modules.get(target.partition(":")[0])
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def missing_extra(error: BaseException, distribution: str | None) -> str | None:
    """Return the extra of *distribution* for whose module *error* asks; None for another error."""
    missing = isinstance(error, ModuleNotFoundError) or (
        # A module that says which extra it needs.
        isinstance(error, ImportError) and isinstance(error.__cause__, ModuleNotFoundError)
    )
    return extra_with(error.name, distribution) if missing else None  # type: ignore[attr-defined]


def remedy_for(
    error: BaseException,
    *,
    kind: str,
    key: str,
    origin: str,
    target: str = "",
    distribution: str | None = None,
) -> str:
    """Return advice for the application about a plugin, of that *target*, that did not load."""
    off = f"or switch it off with disabled=['{kind}:{key}']"
    if extra := missing_extra(error, distribution):
        return f"pip install '{distribution}[{extra}]', which it needs for this, {off}"
    if isinstance(error, ModuleNotFoundError):
        if own := _own_target(error.name or "", target):
            return f"{own}, or reinstall {origin}, {off}"
        return f"install what provides the module {error.name!r}, or reinstall {origin}, {off}"
    if isinstance(error, ImportError):
        return f"its parts don't fit together: upgrade or reinstall {origin}, {off}"
    if isinstance(error, SystemExit):
        return f"it ends the process when imported; report that to the author of {origin}, {off}"
    if isinstance(error, AttributeError):
        return f"correct the target, or upgrade {origin}, {off}"
    if isinstance(error, PluginError) and error.hint:
        return f"{error.hint}{' ' if error.hint.endswith('?') else ', '}{off}"
    return f"see the traceback; report it to the author of {origin}, {off}"


def _own_target(missing: str, target: str) -> str:
    """Return the remedy where *target* itself names the *missing* module."""
    module = target.partition(":")[0]
    owner, _, name = missing.rpartition(".")
    if not owner or not f"{module}.".startswith(f"{missing}."):
        return ""
    if missing == target and hasattr(sys.modules.get(owner), name):
        return f"write {owner}:{name}"
    return f"correct {target}: {owner} has no module {name!r}"


def describe_failure(error: BaseException) -> tuple[str, str]:
    """Return the error in a line, and its traceback from the plugin's own code on."""
    text = getattr(error, "message", None) or str(error)
    kind = type(error).__name__
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
    return (f"{kind}: {text}" if text else kind), "".join(lines)


def _is_ours(filename: str) -> bool:
    importing = sys.modules["importlib"].__file__ or ""
    return filename in (__file__, importing) or filename.startswith("<frozen importlib")
