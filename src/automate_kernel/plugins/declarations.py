"""The parts that a plugin's class declares, looked at as it is loaded: a slip is named at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from automate_kernel.errors import PluginError, did_you_mean, type_name
from automate_kernel.operations.field_options import OptionsMethod, options_methods
from automate_kernel.operations.fields import input_fields
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins.targets import load_target

_LISTS = {
    "actions": ("automate_kernel.operations.spec:OperationSpec", 'ActionSpec("send")'),
    "capabilities": ("automate_kernel.operations.spec:OperationSpec", 'CapabilitySpec("add")'),
    "triggers": ("automate_kernel.connectors:TriggerSpec", 'TriggerSpec("received")'),
    "polls": ("automate_kernel.polls.spec:PollSpec", 'PollSpec("rows", "rows", 60)'),
}


def require_declared(plugin: type[Plugin], target: str) -> None:
    """Raise `PluginError` if *plugin*, named *target*, declares what can't be meant."""
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


def _problem_of(found: Any, spec: type) -> str | None:
    if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
        return f"{'None' if found is None else type_name(found)}, and no list"
    wrong = [each for each in found if not isinstance(each, spec)]
    return f"a list with {type_name(wrong[0])} in it" if wrong else None


def options_problems(
    plugin: type[Plugin], specs: Iterable[OperationSpec] | None = None
) -> Iterator[tuple[str, str]]:
    """
    Yield what is wrong with the methods that give the choices of fields, each with a remedy.

    *specs* are the operations; without them those of the class. Where others follow from a
    config, the class alone can't tell.
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
