"""The distributions that a package imports, and those that its distribution brings along."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement

from automate_kernel.plugins.compatibility import normal_name
from automate_kernel.plugins.manifest import package_folders


def imports_of(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """
    Yield the top-level modules that *packages* can't be imported without, each with one file.

    An import in a function, or in a block such as ``if`` and ``try``, may be optional.
    """
    seen = set(packages)
    for package in packages:
        for folder in package_folders(package):
            for path in sorted(folder.rglob("*.py")):
                for name in _imported(ast.parse(path.read_text("utf-8"))):
                    if name not in seen:
                        seen.add(name)
                        yield name, f"{package}/{path.relative_to(folder).as_posix()}"


def _imported(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def distributions_brought_by(installed: Distribution) -> set[str]:
    """Return the names of a distribution, of its dependencies with all extras, and of theirs."""
    extras = frozenset(installed.metadata.get_all("Provides-Extra") or ())
    brought: dict[str, frozenset[str]] = {}
    waiting = [(normal_name(installed.metadata["Name"]), installed, extras)]
    while waiting:
        name, found, extras = waiting.pop()
        if name in brought and extras <= brought[name]:
            continue
        brought[name] = brought.get(name, frozenset()) | extras
        for needed in _needed(found, brought[name]):
            try:
                inner = distribution(needed.name)
            except PackageNotFoundError:
                continue
            waiting.append((normal_name(needed.name), inner, frozenset(needed.extras)))
    return set(brought)


def _needed(installed: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for line in installed.requires or ():
        try:
            needed = Requirement(line)
        except InvalidRequirement:
            continue
        marker = needed.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras)):
            yield needed
