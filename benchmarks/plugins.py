"""The start of an application that has 100 plugins: the scan, and their manifests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

_RUNS = 9
_TARGET_MS = 25.0
_MEASURE = """
import json, sys, time
from importlib import metadata
from automate_kernel.plugins import Plugins
from automate_kernel.plugins.manifest import installed_manifest

clock = time.process_time  # what other processes do is no part of it
began = clock()
records = Plugins().records()
scanned = clock()
found = [installed_manifest(record) for record in records]
shown = [plugin["description"] for one in found if one is not None for plugin in one.plugins]
ended = clock()
for one in found:
    if one is not None:
        one.require_readable()
whole = clock()
ours = [one for one in found if one is not None and one.distribution.startswith("automate-many")]
imported = [name for name in sys.modules if name.startswith("automate_many")]
times = [scanned - began, ended - scanned, whole - ended]
print(json.dumps([*(each * 1e3 for each in times), len(ours), len(imported)]))
"""


def install_many(site: Path, manifest: Mapping[str, Any], number: int = 100) -> None:
    """Write *number* distributions like that of *manifest*, as an installer does in *site*."""
    readme = "A plugin.\n" * 200
    for index in range(number):
        name = f"automate_many{index:03}"
        package = site / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        plugin = manifest["plugins"][0] | {"key": f"many{index:03}", "target": f"{name}:Many"}
        own = {"distribution": name.replace("_", "-"), "version": "1.0", "plugins": [plugin]}
        (package / "automate.json").write_text(json.dumps(dict(manifest) | own, indent=2))
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
            f"Requires-Dist: automate-kernel<2,>=0.1\nRequires-Dist: pydantic>=2.9\n\n{readme}"
        )
        points = f"[automate.connectors]\nmany{index:03} = {name}:Many\n"
        (info / "entry_points.txt").write_text(points)


def plugins(number: int = 100) -> str:
    """Measure the start in processes of its own, and return the figures in words."""
    return "\n".join(
        f"{number} plugins like {title}: {_measured(manifest, number)}"
        for title, manifest in (
            ("a new connector of one action", _scaffolded()),
            ("automate-http", _described()),
        )
    )


def _described() -> dict[str, Any]:
    import automate_http

    return _read(Path(automate_http.__file__).parent)


def _scaffolded() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="automate-new-") as folder:
        command = [Path(sys.executable).with_name("automate"), "plugins", "new", "many"]
        subprocess.run([*command, "--directory", folder], capture_output=True, check=True)
        return _read(Path(folder) / "automate-many" / "src" / "automate_many")


def _read(package: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((package / "automate.json").read_text("utf-8"))
    return manifest


def _measured(manifest: Mapping[str, Any], number: int) -> str:
    with tempfile.TemporaryDirectory(prefix="automate-many-") as folder:
        site = Path(folder)
        install_many(site, manifest, number)
        size = (site / "automate_many000" / "automate.json").stat().st_size
        runs = [_run(site) for _ in range(_RUNS)]
    scan, read, rest = (median(run[place] for run in runs) for place in (0, 1, 2))
    described, imported = runs[0][3:]
    return (
        f"{_RUNS} processes, medians of processor time: scan {scan:.1f} ms,"
        f" {described} manifests of {size // 1000} kB {read:.1f} ms, in all {scan + read:.1f} ms;"
        f" {imported} imported. To stay below {_TARGET_MS:.0f} ms. A search, which reads all of"
        f" each, {rest:.1f} ms more."
    )


def _run(site: Path) -> list[float]:
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{_MEASURE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found
