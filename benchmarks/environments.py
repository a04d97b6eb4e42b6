"""A virtual environment for each peer, made once and kept; ours run in the one that we run in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contender import Contender

_REQUIREMENTS = Path(__file__).with_name("requirements")
_VERSIONS = """
import importlib.metadata, json, platform, sys
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), "versions": versions}))
"""


class MissingError(Exception):
    """A contender can't be run here; the text says why."""


@dataclass(frozen=True)
class Environment:
    """An interpreter, and what is installed for it."""

    python: Path
    python_version: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def environment(contender: type[Contender]) -> Environment:
    """Where *contender* runs; raises `MissingError`."""
    requirements = _REQUIREMENTS / f"{contender.name}.txt"
    python = _installed(contender, requirements) if contender.peer else Path(sys.executable)
    noted = json.loads(_run(str(python), "-c", _VERSIONS, *contender.packages))
    return Environment(python, noted["python"], noted["versions"])


def _installed(contender: type[Contender], requirements: Path) -> Path:
    interpreter = _interpreter(contender.python)
    wanted = f"{interpreter}\n{requirements.read_text()}"
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:10]
    folder = _cache() / f"{contender.name}-{digest}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run("uv", "venv", "--quiet", "--python", interpreter, str(folder))
        _run("uv", "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements))
        complete.touch()
    return python


def _cache() -> Path:
    chosen = os.environ.get("AUTOMATE_BENCH_CACHE")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "automate-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _interpreter(at_least: str | None) -> str:
    """The Python that we run on, or if it is too old for a peer, one that is not."""
    running = ".".join(map(str, sys.version_info[:2]))
    if at_least is None or _number(running) >= _number(at_least):
        return sys.executable
    if found := shutil.which(f"python{at_least}"):
        try:
            _run(found, "--version")
        except MissingError:
            pass  # a shim of pyenv for a version that is not selected
        else:
            return found
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in sorted(kept.glob(f"{at_least}*/bin/python")):
        return str(candidate)
    try:
        return _run("uv", "python", "find", f">={at_least}").strip()
    except MissingError as error:
        raise MissingError(f"needs Python {at_least}, and none was found") from error


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except FileNotFoundError as error:
        raise MissingError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{command[0]} took too long") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        raise MissingError(f"{' '.join(command[:3])}: {reason[0]}") from error
    return done.stdout
