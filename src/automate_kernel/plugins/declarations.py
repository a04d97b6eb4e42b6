"""The parts that a plugin's class declares, looked at as it is loaded: a slip is named at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from inspect import getattr_static, signature
from types import FunctionType
from typing import Any

from automate_kernel.base.errors import PluginError, did_you_mean, type_name
from automate_kernel.operations.field_options import OptionsMethod, options_methods
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.schemas.checks import is_model, readable_types
from automate_kernel.operations.schemas.fields import input_fields
from automate_kernel.operations.spec import OperationSpec, operation_mark, require_noun
from automate_kernel.plugins.targets import load_target
from automate_kernel.triggers.polls.spec import is_poll

_LISTS = {
    "actions": ("automate_kernel.operations.spec:OperationSpec", 'ActionSpec("send")'),
    "capabilities": ("automate_kernel.operations.spec:OperationSpec", 'CapabilitySpec("add")'),
    "triggers": ("automate_kernel.plugins.connectors:TriggerSpec", 'TriggerSpec("received")'),
    "polls": ("automate_kernel.triggers.polls.spec:PollSpec", 'PollSpec("rows", "rows", 60)'),
}


def require_declared(plugin: type[Plugin], target: str) -> None:
    """Raise `PluginError` if *plugin*, named *target*, declares what can't be meant."""
    _require_marks(plugin, target)
    _require_config_schema(plugin, target)
    _require_parameters(plugin, target)
    for method, (spec, example) in _LISTS.items():
        function = getattr(plugin, method, None)
        home = getattr(function, "__module__", "").partition(".")[0]
        if function is None or home == "automate_kernel":
            continue  # the base class's own lists what it was marked with
        try:
            found = function()
        except (Exception, SystemExit):  # noqa: S112  (said where it is asked for)
            continue
        found = list(found) if isinstance(found, Iterator) else found
        if wrong := _problem_of(found, load_target(spec)):
            raise PluginError(
                f"{method}() of {target} returned {wrong}", hint=f"write return [{example}]"
            )
        if twice := [name for name, count in Counter(e.name for e in found).items() if count > 1]:
            # The second would never be asked, and a webhook of it be proved by the first.
            raise PluginError(
                f"{method}() of {target} has {twice[0]!r} twice", hint="rename one of them"
            )
    for text, hint in options_problems(plugin):
        raise PluginError(f"{target}: {text}", hint=hint)


def _require_marks(plugin: type[Plugin], target: str) -> None:
    """Refuse the decorators of the other kind, which would do nothing in silence."""
    noun = "action" if hasattr(plugin, "actions") else "capability"
    for owner in plugin.__mro__[: plugin.__mro__.index(Plugin)]:
        for name, value in vars(owner).items():
            if found := operation_mark(value):
                require_noun(f"{target}.{name}", found[0], noun)
            elif noun != "action" and is_poll(value):
                raise PluginError(
                    f"{target}.{name}() is marked with @poll, and its class has no polls",
                    hint="derive the class from Connector",
                )


def _require_parameters(plugin: type[Plugin], target: str) -> None:
    """Refuse a method that the kernel calls with other arguments than it takes."""
    bases = [each for each in plugin.__mro__ if each.__module__.startswith("automate_kernel.")]
    for owner in plugin.__mro__[: plugin.__mro__.index(bases[0])]:
        for name, method in vars(owner).items():
            base = getattr_static(bases[0], name, None)
            called = isinstance(base, FunctionType) and not name.startswith("_")
            if called and isinstance(method, FunctionType) and not operation_mark(method):
                parameters = [*signature(base).parameters]
                try:
                    signature(method).bind(*parameters)
                except TypeError:
                    written = ", ".join(parameters)
                    raise PluginError(
                        f"{name}() of {target} can't be called with ({', '.join(parameters[1:])})",
                        hint=f"write def {name}({written})",
                    ) from None


def _require_config_schema(plugin: type[Plugin], target: str) -> None:
    """Refuse what is no model, by which no config would be checked."""
    method = getattr_static(plugin, "config_schema", None)
    if method is getattr_static(Plugin, "config_schema"):
        return
    if not isinstance(method, classmethod):
        found: Any = method
        what = f"config_schema of {target} is"
    else:
        try:
            found = plugin.config_schema()
        except (Exception, SystemExit):  # said where it is asked for
            return
        what = f"config_schema() of {target} returned"
        if is_model(found):
            if not getattr(found, "__pydantic_complete__", True):
                with readable_types(f"the config of {target}"):
                    found.model_rebuild()
            return
        if isinstance(found, Mapping):
            return
    given = found if isinstance(found, type) else type(found)
    model = given.__name__ if is_model(given) else "Settings"
    shown = f"the class {given.__name__}" if found is given else _type_name(found)
    raise PluginError(
        f"{what} {shown}, and no {'class method' if found is method else 'model'}",
        hint="write @classmethod above def config_schema(cls), and in it return"
        f" {model}, a subclass of pydantic.BaseModel",
    )


def _type_name(found: object) -> str:
    return "None" if found is None else type_name(found)


def _problem_of(found: Any, spec: type) -> str | None:
    if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
        return f"{_type_name(found)}, and no list"
    wrong = [each for each in found if not isinstance(each, spec)]
    return f"a list with {type_name(wrong[0])} in it" if wrong else None


def options_problems(
    plugin: type[Plugin], specs: Iterable[OperationSpec] | None = None
) -> Iterator[tuple[str, str]]:
    """
    Yield what is wrong with the methods that give the choices of fields, each with a remedy.

    *specs* are the operations; without them those of the class. Where others follow from a
    config, the class alone can't say.
    """
    methods = options_methods(plugin)
    if not methods or (specs is None and plugin.own_operations is not Plugin.own_operations):
        return
    known = {spec.name: spec for spec in (plugin.operation_specs() if specs is None else specs)}
    for each in methods:
        yield from _problems_of(each, plugin, known)


def _problems_of(
    method: OptionsMethod, plugin: type[Plugin], known: Mapping[str, OperationSpec]
) -> Iterator[tuple[str, str]]:
    for name in sorted(method.operations - known.keys()):
        near = did_you_mean(name, known, also=f"it has: {', '.join(known) or 'none'}")
        yield f"{method.method}() is for {name!r}, which isn't there", near
    serving = [spec for spec in known.values() if method.serves(spec.name)]
    if not serving:
        return
    names = {field.name for spec in serving for field in input_fields(spec.json_schema())}
    for name in (method.field, *method.fields_needed(plugin)):
        if name not in names:
            near = did_you_mean(name, names, also=f"there are: {', '.join(names) or 'none'}")
            yield f"{method.method}() names {name!r}, which is no field", near
