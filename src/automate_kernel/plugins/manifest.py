"""
The manifest of a package: its plugins as ``automate.json`` describes them, read without an import.

The file lies beside the package's ``__init__.py``. `automate_testing.authoring.description` makes
it from the code, and finds where the two differ.
"""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from automate_kernel.base.errors import PluginError
from automate_kernel.plugins.discovery import read_small
from automate_kernel.plugins.manifest_text import outlined, to_text
from automate_kernel.plugins.records import PluginRecord

MANIFEST_FILE = "automate.json"
EXAMPLE_FILE = "example.yaml"
_FORMAT = 1


class ManifestError(PluginError):
    """A manifest can't be read."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    A description of the plugins of one package.

    *pydantic* is the version that wrote the schemas, as ``2.12``. Each of *plugins* is a JSON
    object; see `automate_testing.authoring.description.describe`. Of a manifest that was read, the
    long parts of each are parsed at their first use.
    """

    distribution: str
    version: str
    pydantic: str
    plugins: tuple[Mapping[str, Any], ...]
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the file *path*; raises `ManifestError`."""
        try:
            return cls._of(path.read_bytes(), path)
        except _UNREADABLE as error:
            raise _unreadable(path, error) from None

    @classmethod
    def _of(cls, content: bytes, path: Path) -> Manifest:
        data = outlined(content)
        if data["manifest"] != _FORMAT:
            raise ManifestError(
                f"{path} is a manifest of format {data['manifest']!r}, and this is {_FORMAT}",
                hint="install a newer automate-kernel",
            )
        name, version, pydantic = data["distribution"], data["version"], data["pydantic"]
        plugins = tuple(data["plugins"])
        if not all(name in plugin for plugin in plugins for name in ("kind", "key", "target")):
            raise KeyError("plugins")
        return cls(str(name), str(version), str(pydantic), plugins, path)

    @classmethod
    def of_installed(cls, location: str, target: str) -> Manifest | None:
        """
        Read the manifest of the package of *target* in the folder *location*, if it is there.

        Raises `ManifestError`.
        """
        path = f"{location}/{top_level(target)}/{MANIFEST_FILE}"
        try:
            content = read_small(path)
            return cls._of(content, Path(path)) if content is not None else None
        except _UNREADABLE as error:
            raise _unreadable(Path(path), error) from None

    def require_readable(self) -> None:
        """Raise `ManifestError` if a part can't be read, of those that nobody has asked for yet."""
        for plugin in self.plugins:
            self.whole(plugin)

    def whole(self, plugin: Mapping[str, Any]) -> dict[str, Any]:
        """Return all of one of the descriptions; raises `ManifestError`."""
        try:
            return dict(plugin)
        except _UNREADABLE as error:
            raise _unreadable(self.path, error) from None

    def entry(self, kind: str, key: str) -> Mapping[str, Any] | None:
        """Return the description of a plugin, or None."""
        for plugin in self.plugins:
            if plugin["kind"] == kind and plugin["key"] == key:
                return plugin
        return None

    def of_class(self, kind: str, key: str, target: str) -> Mapping[str, Any] | None:
        """
        Return the description of the plugin at *target*, with its *key*, or None.

        One class may serve several keys, and may be reached by several paths in its package.
        """
        name = target.rpartition(":")[2]
        found = [
            each
            for each in self.plugins
            if each["kind"] == kind and each["target"].rpartition(":")[2] == name
        ]
        found = [each for each in found if each["key"] == key] or found
        own = {"key": key, "target": target}
        # Not a copy: what is long stays unread until somebody asks for it.
        return ChainMap(own, cast("dict[str, Any]", found[0])) if found else None

    def has_account(self, kind: str, target: str) -> bool | None:
        """
        Return True if a plugin may be connected to an account; None for one not described.

        Raises `ManifestError`.
        """
        found = self.of_class(kind, "", target)
        return self.whole(found).get("account") is True if found is not None else None

    def to_text(self) -> str:
        """Return the text of the file; the order of entry points makes no difference to it."""
        data = {
            "manifest": _FORMAT,
            "distribution": self.distribution,
            "version": self.version,
            "pydantic": self.pydantic,
            "plugins": sorted(self.plugins, key=lambda each: (each["kind"], each["key"])),
        }
        return to_text(data)


_UNREADABLE = (OSError, ValueError, RecursionError, KeyError, TypeError)


def _unreadable(path: Path | None, error: Exception) -> ManifestError:
    return ManifestError(
        f"the manifest {path} can't be read: {type(error).__name__}",
        hint="reinstall its distribution; its author writes it with: automate plugins check"
        " --manifest write",
    )


def top_level(target: str) -> str:
    """Return the package of a *target*: ``automate_acme`` of ``automate_acme.connector:Acme``."""
    return target.partition(":")[0].partition(".")[0]


def package_folders(package: str) -> Iterator[Path]:
    """Yield the folders of a top-level *package*, without importing it; none for a module."""
    loaded = sys.modules.get(package)
    try:
        # Never of a name with a dot: that would import its parents.
        spec = loaded.__spec__ if loaded is not None else find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return
    if spec is not None and spec.submodule_search_locations is not None:
        yield from map(Path, spec.submodule_search_locations)


def beside(target: str, name: str) -> Path | None:
    """Return the file *name* in the package of *target*, if it is there; imports nothing."""
    for folder in package_folders(top_level(target)):
        if (path := folder / name).is_file():
            return path
    return None


def manifest_of(target: str) -> Manifest | None:
    """Return the manifest of the package of *target*, or None; raises `ManifestError`."""
    path = beside(target, MANIFEST_FILE)
    return Manifest.read(path) if path is not None else None


def installed_manifest(record: PluginRecord) -> Manifest | None:
    """
    Return the manifest that describes a plugin, or None; raises `ManifestError`.

    A manifest of another version than the distribution's describes nothing.
    """
    # Beside its distribution, mostly: to look for the package takes four times as long.
    location = record.location
    manifest = Manifest.of_installed(location, record.target) if location is not None else None
    manifest = manifest or manifest_of(record.target)
    if manifest is None or record.version not in (None, manifest.version):
        return None
    return manifest
