"""The levels of a plugin, and exactly what each requires."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class PluginLevel(IntEnum):
    """
    A level that a plugin can reach.

    It has reached a level if it meets all requirements of this level and of the lower levels.
    """

    BROKEN = 0
    LOADS = 1
    TESTED = 2
    DOCUMENTED = 3
    COMPLETE = 4

    @property
    def word(self) -> str:
        """The name on the command line."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a level needs."""

    name: str
    level: PluginLevel
    meaning: str


REQUIREMENTS: dict[str, Requirement] = {
    each.name: each
    for each in (
        Requirement(
            "installed",
            PluginLevel.LOADS,
            "The distribution is installed, from this folder, with the entry points of its"
            " `pyproject.toml`.",
        ),
        Requirement(
            "imported",
            PluginLevel.LOADS,
            "Each plugin imports, fits its kind and this version of automate-kernel, and no other"
            " distribution claims its key.",
        ),
        Requirement(
            "key",
            PluginLevel.LOADS,
            "Each plugin calls itself as its entry point does, and has a name for people.",
        ),
        Requirement(
            "specs",
            PluginLevel.LOADS,
            "The names of operations and triggers are unique, and all schemas are JSON Schema.",
        ),
        Requirement(
            "made",
            PluginLevel.LOADS,
            "Each connector and provider can be made with its config: yours, its defaults, the"
            " first of the `examples` of its model, or one made up from the fields.",
        ),
        Requirement(
            "dependencies",
            PluginLevel.LOADS,
            "The distributions whose modules the package imports at once are dependencies, or come"
            " with one.",
        ),
        Requirement(
            "connection",
            PluginLevel.LOADS,
            "With `--test-connection`: the plugin's `check()` reaches its service.",
        ),
        Requirement(
            "contract",
            PluginLevel.TESTED,
            "The contract suite of each plugin's kind passes. A project's own tests run it; for an"
            " installed connector or provider the command does, and calls none of its operations.",
        ),
        Requirement("tests", PluginLevel.TESTED, "All tests of the project pass."),
        Requirement(
            "metadata",
            PluginLevel.DOCUMENTED,
            "The distribution has a summary, a licence and its file, `requires-python`, a lower and"
            " an upper bound for automate-kernel, and the classifiers of its Python versions and"
            " `Typing :: Typed`.",
        ),
        Requirement("typed", PluginLevel.DOCUMENTED, "Each package has a `py.typed`."),
        Requirement(
            "readme",
            PluginLevel.DOCUMENTED,
            "The README says how to install it, and names each plugin's key, and no operation that"
            " isn't there.",
        ),
        Requirement(
            "described",
            PluginLevel.DOCUMENTED,
            "Each plugin, operation, webhook, poll and field of the config has a description.",
        ),
        Requirement(
            "manifest",
            PluginLevel.DOCUMENTED,
            "Each package has an `automate.json` that says what the code says, with this version.",
        ),
        Requirement(
            "example",
            PluginLevel.DOCUMENTED,
            "The package has an `example.yaml` that names each connector, provider and filter, and"
            " whose every call fits. Where operations follow from the config it is only read.",
        ),
        Requirement(
            "inputs",
            PluginLevel.COMPLETE,
            "Each field of an operation's input has a description: forms and models go by it.",
        ),
        Requirement(
            "outputs",
            PluginLevel.COMPLETE,
            "Each operation has an output schema: dry runs and editors go by it.",
        ),
        Requirement(
            "webhooks",
            PluginLevel.COMPLETE,
            "Each webhook is verified by a signature scheme, and has a payload schema.",
        ),
        Requirement(
            "secrets",
            PluginLevel.COMPLETE,
            "A field of the config that is called a token, password, secret or key is a"
            " `SecretStr`, so that no form and no page shows it (`.get_secret_value()` is its"
            " text). One that holds the key of a"
            " secret, and no secret, is a `SecretKey` of `automate_kernel.secrets.keys`.",
        ),
        Requirement(
            "probe",
            PluginLevel.COMPLETE,
            "Each connector and provider has a `check()` of its own, for `--test-connection`.",
        ),
    )
}
"""All requirements, in the order in which they are looked at."""


def reached(missed: Iterable[str]) -> PluginLevel:
    """Return the highest level of which no requirement is *missed*."""
    lowest = min((REQUIREMENTS[name].level for name in missed), default=None)
    return PluginLevel.COMPLETE if lowest is None else PluginLevel(lowest - 1)
