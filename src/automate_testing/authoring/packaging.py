"""The checks of what a distribution ships beside its code: metadata, README, manifest, example."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.schemas.fields import field_description
from automate_kernel.plugins.compatibility import normal_name, requirement_on_kernel
from automate_kernel.plugins.manifest import Manifest, manifest_of, package_folders
from automate_kernel.plugins.targets import load_target
from automate_testing.authoring.dependencies import distributions_brought_by, imports_of
from automate_testing.authoring.description import drift
from automate_testing.authoring.example import ExampleFile, has_own_operations
from automate_testing.authoring.project import PluginProject

Fault = tuple[str, str]
Described = Sequence[Mapping[str, Any]]
_WRITE_IT = "automate plugins check --manifest write"
_SHOWN_CHANGES = 4
_DESCRIBED_PARTS = (
    ("operations", "", "give it a docstring"),
    ("triggers", "webhook ", "give its TriggerSpec a description"),
    ("polls", "poll ", "give it a docstring"),
)


def _metadata(project: PluginProject, described: Described) -> Iterator[Fault]:
    if project.installed is None:
        return
    metadata = project.installed.metadata
    needs = "add it to [project] in pyproject.toml"
    if not metadata["Summary"]:
        yield "the distribution has no description", needs
    if not (metadata["License-Expression"] or metadata["License"]):
        yield "the distribution names no licence", 'add license = "…" to [project]'
    if not metadata["Requires-Python"]:
        yield "the distribution says no requires-python", needs
    classifiers = metadata.get_all("Classifier") or []
    if "Typing :: Typed" not in classifiers:
        yield "the classifier Typing :: Typed is missing", needs
    if not any(re.fullmatch(r"Programming Language :: Python :: 3\.\d+", c) for c in classifiers):
        yield "no classifier says for which Python versions it is", needs
    bounds = requirement_on_kernel(project.installed.requires or ())
    if not re.search(r">=|==|~=", bounds) or not re.search(r"<|==|~=", bounds):
        needed = f"automate-kernel {bounds}" if bounds else "any automate-kernel"
        text = f"it needs {needed}, and the next major version may break it"
        yield text, 'write a lower and an upper bound: "automate-kernel>=0.1,<2"'
    if not _has_licence(project):
        yield "the text of the licence is missing", "add a file LICENSE"


def _has_licence(project: PluginProject) -> bool:
    names = ("LICENSE", "LICENCE", "COPYING", "NOTICE")
    if project.folder is not None:
        return any(each.name.upper().startswith(names) for each in project.folder.iterdir())
    files = (project.installed.files if project.installed else None) or []
    return any(Path(str(each)).name.upper().startswith(names) for each in files)


def _typed(project: PluginProject, described: Described) -> Iterator[Fault]:
    for package in project.packages():
        if not any((folder / "py.typed").is_file() for folder in package_folders(package)):
            yield (
                f"{package} has no py.typed, so that type checkers pass it over",
                f"make an empty file py.typed in {package}",
            )


def _readme(project: PluginProject, described: Described) -> Iterator[Fault]:
    text = _readme_text(project)
    if not text.strip():
        yield "there is no README", "write a README.md, and name it in pyproject.toml"
        return
    if not re.search(rf"(pip install|uv add)[^\n]*{re.escape(project.name)}", text):
        yield "the README does not say how to install it", f"write: pip install {project.name}"
    for about in described:
        if about["key"] not in text:
            yield f"the README does not name {about['key']!r}", "say what it is for"
        if about["kind"] in ("connector", "provider"):
            plugin = load_target(about["target"])
            for name in () if has_own_operations(plugin) else _named_by_nobody(text, about):
                yield f"the README names {name}, which isn't there", "write what there is"


def _readme_text(project: PluginProject) -> str:
    if project.folder is not None:
        found = sorted(project.folder.glob("README*"))
        return found[0].read_text("utf-8") if found else ""
    if project.installed is None:
        return ""
    return str(project.installed.metadata.json.get("description") or "")


def _named_by_nobody(text: str, about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what *text* calls an operation or event of a plugin, and isn't one."""
    parts = ("operations", "triggers", "polls")
    known = {each["name"] for part in parts for each in about.get(part, ())}
    for name in dict.fromkeys(re.findall(rf"`{re.escape(about['key'])}\.([a-z0-9_]+)`", text)):
        if name not in known:
            yield f"{about['key']}.{name}"


def _described(project: PluginProject, described: Described) -> Iterator[Fault]:
    for about in described:
        key = about["key"]
        if not about["description"]:
            yield f"{about['kind']} {key} has no description", "give it a docstring"
        for part, noun, remedy in _DESCRIBED_PARTS:
            for each in about.get(part, ()):
                if not each["description"]:
                    yield f"{noun}{key}.{each['name']} has no description", remedy
        for name, one in (about.get("config") or {}).get("properties", {}).items():
            if not field_description(one):
                yield (
                    f"config.{key}.{name} has no description",
                    f'write {name}: … = Field(…, description="…")',
                )


def _manifest(project: PluginProject, described: Described) -> Iterator[Fault]:
    for about in described:
        try:
            manifest = manifest_of(about["target"])
        except AutomateError as error:
            yield error.message, _WRITE_IT
            continue
        if manifest is None:
            yield f"{about['kind']} {about['key']} has no manifest", _WRITE_IT
            continue
        changes = [*_other_version(manifest, project), *drift(manifest, about)]
        if changes:
            shown = "; ".join(changes[:_SHOWN_CHANGES])
            more = f"; and {len(changes) - _SHOWN_CHANGES} more" * (len(changes) > _SHOWN_CHANGES)
            yield f"the manifest of {about['key']} is not up to date: {shown}{more}", _WRITE_IT


def _other_version(manifest: Manifest, project: PluginProject) -> Iterator[str]:
    if manifest.version != project.version:
        yield f"its version is {manifest.version}, and this is {project.version}"


def _example(project: PluginProject, described: Described) -> Iterator[Fault]:
    for about in described:
        if about["kind"] not in ("connector", "provider", "filter"):
            continue
        example = ExampleFile.of(about["target"])
        if example is None:
            yield (
                f"{about['kind']} {about['key']} has no example",
                "write a workflow that uses it, as example.yaml beside the package's __init__.py",
            )
            continue
        plugin = load_target(about["target"])
        if not example.names(about["key"]) and not has_own_operations(plugin):
            yield f"the example does not use {about['key']}", f"use it in {example.path}"
        for problem in example.problems(plugin):
            yield f"the example does not run: {problem}", f"correct {example.path}"


def _dependencies(project: PluginProject, described: Described) -> Iterator[Fault]:
    if project.installed is None:
        return
    brought, owned = distributions_brought_by(project.installed), packages_distributions()
    for module, file in imports_of(project.packages()):
        owners = {normal_name(name) for name in owned.get(module, ())}
        if owners and not owners & brought:
            name = min(owners)
            yield (
                f"{file} imports {module}, and no dependency brings {name}",
                f'add "{name}" to dependencies in pyproject.toml, and install it again',
            )


PACKAGING: dict[str, Callable[[PluginProject, Described], Iterator[Fault]]] = {
    "dependencies": _dependencies,
    "metadata": _metadata,
    "typed": _typed,
    "readme": _readme,
    "described": _described,
    "manifest": _manifest,
    "example": _example,
}
"""The checks, by the name of the requirement."""
