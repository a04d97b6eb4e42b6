"""A new plugin: a whole distribution, made of the project in ``examples/plugin``."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from automate_kernel.base.errors import ConfigError
from automate_kernel.plugins.kinds import KINDS
from automate_kernel.plugins.manifest import MANIFEST_FILE, Manifest, top_level
from automate_kernel.plugins.targets import load_target
from automate_kernel.templates.filters import FilterRegistry
from automate_testing.authoring.description import describe, pydantic_version

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MOST_LETTERS = 24
_ON_THE_EXAMPLE = " `example.yaml` shows a workflow; `check` and the tests see that it runs."


@dataclass(frozen=True, slots=True)
class ScaffoldKind:
    """A kind of plugin that can be begun: its name on the command line, and its entry point."""

    name: str
    kind: str
    target: str

    @property
    def group(self) -> str:
        """The entry-point group."""
        return KINDS[self.kind].groups[0]


SCAFFOLD_KINDS: dict[str, ScaffoldKind] = {
    each.name: each
    for each in (
        ScaffoldKind("connector", "connector", "automate_acme.connector:AcmeConnector"),
        ScaffoldKind("provider", "provider", "automate_acme.provider:AcmeProvider"),
        ScaffoldKind("secrets", "secrets_backend", "automate_acme.backend:AcmeBackend"),
        ScaffoldKind("filter", "filter", "automate_acme.filters:acme"),
        ScaffoldKind("store", "outbox_store", "automate_acme.store:AcmeOutboxStore"),
        ScaffoldKind("outputs", "output_store", "automate_acme.outputs:AcmeOutputStore"),
    )
}


def template_folder() -> Path:
    """Return the folder of the templates: in the installed package, or in the repository."""
    installed = Path(__file__).with_name("template")
    if installed.is_dir():
        return installed
    return Path(__file__).parents[3] / "examples" / "plugin"


@dataclass(frozen=True, slots=True)
class Scaffold:
    """
    The names of a new plugin: ``acme_mail``, ``Acme Mail``, ``automate-acme-mail``.

    *kinds* are keys of `SCAFFOLD_KINDS`.
    """

    name: str
    kinds: tuple[str, ...]

    @classmethod
    def named(cls, name: str, kinds: Sequence[str]) -> Scaffold:
        """Return the plugin called *name*; raises `ConfigError` for a name or kinds of no use."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
        key = re.sub(r"[-_.\s]+", "_", words).strip("_").lower().removeprefix("automate_")
        if not _NAME.fullmatch(key) or len(key) > _MOST_LETTERS:
            raise ConfigError(
                f"{name!r} is no name for a plugin",
                hint=f"use at most {_MOST_LETTERS} letters of a to z and digits, with a letter"
                " first: acme, acme-mail",
            )
        if keyword.iskeyword(key):
            raise ConfigError(
                f"{name!r} is a word of Python, and no name for a plugin",
                hint=f"choose another, such as {key}-plugin",
            )
        if key in ("kernel", "sqlalchemy", "django"):
            raise ConfigError(f"automate-{key} is ours", hint="choose another name")
        for kind in kinds:
            if kind not in SCAFFOLD_KINDS:
                known = ", ".join(SCAFFOLD_KINDS)
                raise ConfigError(f"there is no kind of plugin {kind!r}", hint=f"use {known}")
        if "filter" in kinds and (taken := FilterRegistry().taken(key)):
            raise ConfigError(
                f"{key!r} is no name for a filter: templates have one, {taken}",
                hint=f"choose another, such as my-{key}",
            )
        if {"connector", "provider"} <= set(kinds):
            raise ConfigError(
                "a connector and a provider would share the name of their operations",
                hint="a connector can do all that a provider can: leave provider out",
            )
        return cls(key, tuple(dict.fromkeys(kinds)))

    @property
    def distribution(self) -> str:
        """The distribution's name: ``automate-acme-mail``."""
        return "automate-" + self.name.replace("_", "-")

    @property
    def package(self) -> str:
        """The package's name: ``automate_acme_mail``."""
        return f"automate_{self.name}"

    def namesakes(self) -> list[str]:
        """Return what is installed with the same key, as ``connector slack of automate-slack``."""
        return [
            f"{known.kind} {self.name} of {each.dist.name}"
            for known in map(SCAFFOLD_KINDS.__getitem__, self.kinds)
            for each in entry_points(group=known.group, name=self.name)
            if each.dist is not None
        ]

    def write(self, parent: Path) -> Path:
        """
        Write the distribution below *parent*, and return its folder.

        Raises `ConfigError` if that is there already.
        """
        folder, files = parent / self.distribution, sorted(self.files().items())
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            self.require_free(parent)
            raise
        except OSError as error:
            raise ConfigError(f"{folder} can't be made: {error.strerror}") from None
        for path, text in files:
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        self._write_manifest(folder)
        return folder

    def require_free(self, parent: Path) -> None:
        """Raise `ConfigError` if the distribution's folder is below *parent* already."""
        folder = parent / self.distribution
        if folder.exists() or folder.is_symlink():
            raise ConfigError(
                f"{folder} exists already, and is left as it is",
                hint="choose another name, or another --directory",
            )

    @property
    def remarks(self) -> tuple[str, ...]:
        """The things that its author should look at."""
        return ()

    def files(self) -> dict[str, str]:
        """Return the text of every file, by its path in the distribution's folder."""
        found = {}
        for part in ("common", *self.kinds):
            folder = template_folder() / part
            # An installer compiles the modules beside them.
            given = (each for each in folder.rglob("*") if "__pycache__" not in each.parts)
            for path in sorted(each for each in given if each.is_file()):
                name = path.relative_to(folder).as_posix()
                if part == "common" or "/" in name:
                    found[self._path(name)] = self.filled(path.read_text("utf-8"))
        found["README.md"] = found["README.md"].replace(
            "<!-- plugins -->\n", "\n".join(self._parts("README.md"))
        )
        found["pyproject.toml"] = found["pyproject.toml"].replace(
            "# entry points\n", "\n".join(self._entry_points())
        )
        if "store" in self.kinds:  # its contract tries values that hypothesis finds
            found["pyproject.toml"] = found["pyproject.toml"].replace("[cli]", "[cli,testing]")
        if example := self._example():
            found[f"src/{self.package}/example.yaml"] = example
        else:
            found["README.md"] = found["README.md"].replace(_ON_THE_EXAMPLE, "")
        return found

    def filled(self, template: str) -> str:
        """Return *template* with the plugin's own names in the places of Acme's."""
        title = " ".join(word.capitalize() for word in self.name.split("_"))
        names = {
            "Acme Inc": title,
            "automate-acme": self.distribution,
            "ACME": self.name.upper(),
            "Acme": title.replace(" ", ""),
            "acme": self.name,
        }
        return re.sub(
            "|".join(sorted(names, key=len, reverse=True)), lambda it: names[it[0]], template
        )

    def _path(self, name: str) -> str:
        # Under these names the templates would be the repository's own settings.
        for plain in ("gitignore", "github/"):
            if name.startswith(plain):
                return f".{name}"
        return self.filled(name)

    def _write_manifest(self, folder: Path) -> None:
        """Describe the plugins that were just written, as ``automate plugins check`` will."""
        if self.package in sys.modules:
            return  # another one of this name, which an application has imported
        source = str(folder / "src")
        sys.path.insert(0, source)
        written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            plugins = []
            for each in map(SCAFFOLD_KINDS.__getitem__, self.kinds):
                target = self.filled(each.target)
                plugin = load_target(target)
                plugins.append(describe(KINDS[each.kind], self.name, target, plugin))
            made = Manifest(self.distribution, "0.1.0", pydantic_version(), tuple(plugins))
            path = folder / "src" / self.package / MANIFEST_FILE
            path.write_text(made.to_text(), "utf-8")
        finally:
            sys.dont_write_bytecode = written
            sys.path.remove(source)
            for name in [each for each in sys.modules if top_level(each) == self.package]:
                del sys.modules[name]

    def _parts(self, name: str) -> Iterator[str]:
        for kind in self.kinds:
            path = template_folder() / kind / name
            if path.is_file():
                yield self.filled(path.read_text("utf-8"))

    def _entry_points(self) -> Iterator[str]:
        for kind in map(SCAFFOLD_KINDS.__getitem__, self.kinds):
            target = self.filled(kind.target)
            yield f'[project.entry-points."{kind.group}"]\n{self.name} = "{target}"\n'

    def _example(self) -> str:
        """Return the example workflow; empty for kinds that no workflow names."""
        steps, outputs = "".join(self._parts("steps.yaml")), "".join(self._parts("output.yaml"))
        if not steps and not outputs:
            return ""
        webhook = f"{{type: webhook, connector: {self.name}, trigger: received}}"
        trigger = webhook if "connector" in self.kinds else "{type: manual}"
        head = f"name: {self.name.replace('_', '-')}-example\ntrigger: {trigger}\nsteps:\n"
        return head + (steps or "  - {id: pause, sleep: 1s}\n") + outputs
