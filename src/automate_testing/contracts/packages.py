"""Checks of the files that a plugin's package ships: its manifest and its example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from automate_kernel.plugins.discovery import Found
from automate_kernel.plugins.kinds import KINDS
from automate_kernel.plugins.manifest import manifest_of, top_level
from automate_kernel.plugins.targets import load_target, target_of
from automate_testing.authoring.description import describe, drift
from automate_testing.authoring.project import announced_in


def require_no_drift(plugin: Any) -> None:
    """Fail if the manifest of the package says something else of *plugin* than its code."""
    for found in _announced(plugin):
        manifest = manifest_of(found.target)
        if manifest is None:
            continue
        now = describe(KINDS[found.kind], found.key, found.target, plugin)
        if changes := drift(manifest, now):
            listed = "\n".join(f"  {each}" for each in changes)
            pytest.fail(
                f"{manifest.path} is not what the code of {found.kind} {found.key!r} says:\n"
                f"{listed}\nupdate it in the plugin's folder: automate plugins check"
                " --manifest write",
                pytrace=False,
            )


def require_example(plugin: Any) -> None:
    """Fail if the package of *plugin* has an example that does not run."""
    # Imported here: a kernel is half of what a suite has to import, and most have no example.
    from automate_testing.authoring.example import ExampleFile

    example = ExampleFile.of(target_of(plugin))
    if example is not None and (problems := example.problems(plugin)):
        listed = "\n".join(f"  {each}" for each in problems)
        pytest.fail(f"{example.path} does not run:\n{listed}", pytrace=False)


def _announced(plugin: Any) -> Iterator[Found]:
    """Yield the entry points that announce *plugin*."""
    for found in announced_in(top_level(target_of(plugin))):
        if load_target(found.target) is plugin:
            yield found
