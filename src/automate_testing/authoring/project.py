"""A plugin's project: a folder with a ``pyproject.toml``, or an installed distribution."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, did_you_mean
from automate_kernel.plugins.compatibility import normal_name
from automate_kernel.plugins.discovery import Found, scan
from automate_kernel.plugins.kinds import GROUPS, KINDS
from automate_kernel.plugins.manifest import MANIFEST_FILE, Manifest, package_folders, top_level
from automate_kernel.plugins.targets import describe_failure, load_target, normal_target
from automate_testing.authoring.description import describe, pydantic_version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class PluginProject:
    """
    A distribution with plugins: *found* are those that it announces in this environment.

    *folder* is that of its ``pyproject.toml``, whose content is *declared*; an installed
    distribution has neither.
    """

    name: str
    installed: Distribution | None
    found: tuple[Found, ...]
    folder: Path | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, folder: Path) -> PluginProject:
        """Return the project in *folder*; raises `ConfigError`."""
        file = folder / "pyproject.toml"
        try:
            declared = tomllib.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"there is no {file}", hint="name a plugin by its folder or its key"
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} can't be read: {error}") from None
        name = declared.get("project", {}).get("name")
        if not isinstance(name, str):
            raise ConfigError(f"{file} has no project with a name")
        return cls(name, _installed(name), _announced(name), folder.resolve(), declared)

    @classmethod
    def with_key(cls, key: str) -> PluginProject:
        """Return the installed distribution of that name, or of the plugin *key* (``kind:key``)."""
        kind, _, name = key.rpartition(":")
        everything = list(scan())
        found = [each for each in everything if each.key == name and kind in ("", each.kind)]
        if not found:
            wanted = normal_name(key)
            found = [each for each in everything if normal_name(each.distribution or "") == wanted]
        names = {each.distribution for each in found}
        if len(names) != 1 or None in names:
            several = ", ".join(sorted(str(each) for each in names))
            raise AutomateError(
                ErrorCodes.NOT_FOUND,
                f"several distributions bring {key!r}: {several}"
                if names
                else f"no installed distribution brings a plugin {key!r}",
                hint=did_you_mean(
                    key,
                    {str(each) for one in everything for each in (one.key, one.distribution)},
                    also="automate plugins ls lists them; a path names a project's folder: ./acme",
                ),
            )
        distribution_name = str(found[0].distribution)
        return cls(distribution_name, _installed(distribution_name), tuple(found))

    @classmethod
    def named(cls, place: str) -> PluginProject:
        """Return the project at a path, or that of an installed plugin's key or distribution."""
        folder = Path(place)
        if "/" in place and not folder.is_dir():
            raise ConfigError(
                f"there is no folder {place!r}", hint="name the folder that has its pyproject.toml"
            )
        if folder.is_dir() and (place in (".", "..") or "/" in place or not _is_key(place)):
            return cls.at(folder)
        return cls.with_key(place)

    @classmethod
    def holding(cls, package: str) -> PluginProject | None:
        """Return the project in whose folder a top-level *package* lies; imports nothing."""
        for place in package_folders(package):
            for folder in place.resolve().parents:
                if (folder / "pyproject.toml").is_file():
                    return cls.at(folder)
        return None

    @property
    def version(self) -> str:
        """The version: that of ``pyproject.toml`` if it says one, or else of what is installed."""
        own = self.declared.get("project", {}).get("version")
        if isinstance(own, str):
            return own
        return self.installed.version if self.installed is not None else "0"

    @property
    def entry_points(self) -> dict[tuple[str, str], str]:
        """The targets that ``pyproject.toml`` announces, by group and key."""
        groups = self.declared.get("project", {}).get("entry-points", {})
        return {
            (group, key): normal_target(target, announced=True)
            for group, targets in groups.items()
            if group in GROUPS
            for key, target in targets.items()
        }

    def declared_plugins(self) -> Iterator[Found]:
        """Yield what an installation of the folder would announce."""
        for (group, key), target in self.entry_points.items():
            yield Found(GROUPS[group].name, key, target, group, self.name, self.version)

    def require_installed(self) -> None:
        """Raise `ConfigError` unless what is installed is what the folder has."""
        if problem := self.difference():
            raise ConfigError(problem, hint=self.install_hint)

    def difference(self) -> str | None:
        """Return how what is installed differs from the folder, or None."""
        if self.installed is None:
            return f"{self.name} is not installed in this environment ({sys.prefix})"
        if self.folder is None:
            return None
        installed = {(each.group, each.key): each.target for each in self.found}
        if installed != self.entry_points:
            return f"{self.name} is installed with other entry points than pyproject.toml has"
        for found in self.found:
            package = top_level(found.target)
            folders = list(package_folders(package))
            # A package that is nowhere is reported by whoever imports it.
            if folders and not any(self._holds(each) for each in folders):
                return f"{package} is not imported from {self.folder}, but from another place"
        return None

    @property
    def install_hint(self) -> str:
        """The command that installs the folder here."""
        place = shlex.quote(str(self.folder or self.name))
        return f"pip install -e {place}   (or: uv pip install -e …)"

    @property
    def folder_hint(self) -> str:
        """The command that checks more of an installed distribution: that of its folder."""
        text = self.installed.read_text("direct_url.json") if self.installed is not None else None
        origin = json.loads(text) if text else {}
        is_here = origin.get("dir_info", {}).get("editable") is True
        folder = unquote(urlsplit(origin["url"]).path) if is_here else "FOLDER"
        return f"automate plugins check {shlex.quote(folder)}, where its project and its tests are"

    def packages(self) -> list[str]:
        """Return the top-level packages of its plugins."""
        return sorted({top_level(each.target) for each in self.found})

    def manifests(self) -> dict[Path, Manifest]:
        """
        Return the manifest of each package as its code says it, by the path of its file.

        It imports the plugins. Raises `ConfigError` for a plugin that can't be described.
        """
        made = {}
        for package in self.packages():
            # First: one that is nowhere is no module either.
            plugins = [described(each) for each in self.found if top_level(each.target) == package]
            folder = next(iter(package_folders(package)), None)
            if folder is None:
                raise ConfigError(
                    f"{package} is a module, and a manifest lies in a package",
                    hint=f"make it a folder: {package}/__init__.py",
                )
            made[folder / MANIFEST_FILE] = Manifest(
                self.name, self.version, pydantic_version(), tuple(plugins)
            )
        return made

    def _holds(self, path: Path) -> bool:
        return self.folder is not None and self.folder in path.resolve().parents


def announced_in(package: str) -> list[Found]:
    """
    Return the plugins in a top-level *package*: those installed, or else those of its project.

    The tests of a new plugin run before it is installed.
    """
    found = [each for each in scan() if top_level(each.target) == package]
    project = None if found else PluginProject.holding(package)
    declared = project.declared_plugins() if project is not None else ()
    return found or [each for each in declared if top_level(each.target) == package]


def described(found: Found) -> dict[str, Any]:
    """Return the description of an installed plugin; raises `ConfigError` if it has none."""
    try:
        plugin = load_target(found.target)
        KINDS[found.kind].require_fit(plugin, found.target)
        return describe(KINDS[found.kind], found.key, found.target, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end its host
        problem, _ = describe_failure(error)
        hint = getattr(error, "hint", None)
        text = f"{found.kind} {found.key!r} can't be described: {problem}"
        raise ConfigError(text, hint=hint) from error


def _is_key(place: str) -> bool:
    name = place.rpartition(":")[2]
    return any(each.key == name for each in scan())


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _announced(name: str) -> tuple[Found, ...]:
    wanted = normal_name(name)
    return tuple(each for each in scan() if normal_name(each.distribution or "") == wanted)
