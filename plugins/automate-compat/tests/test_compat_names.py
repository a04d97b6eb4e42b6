"""Each name is the kernel's own, and the name of another project's package does no harm."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PLAIN = [
    "automate_core.providers.base",
    "automate_governance.secrets.interfaces",
    "automate_connectors.base",
    "automate.templates",
    "automate.secrets_backend",
]


@pytest.mark.parametrize("module", PLAIN)
def test_each_name_is_the_kernels_own(module: str) -> None:
    """The same object, so its type and its docstring are the same; and none needs Django."""
    found = importlib.import_module(module)
    path = SRC / f"{module.replace('.', '/')}.py"
    imported = [
        (node.module, alias.name, alias.asname)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert imported
    for home, name, shown in imported:
        # Written with `as`, a type checker takes it for a name of this module.
        assert shown == name
        assert getattr(found, name) is getattr(importlib.import_module(str(home)), name)
        assert getattr(found, name).__doc__


def test_every_module_re_exports_alone() -> None:
    """No class and no logic of its own, but for the model that loads late."""
    for path in SRC.rglob("*.py"):
        body = ast.walk(ast.parse(path.read_text()))
        own = [each for each in body if isinstance(each, (ast.ClassDef, ast.FunctionDef))]
        assert len(own) == (path.parts[-2:] == ("outbox", "__init__.py")), path


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    path = repr([str(each) for each in paths])
    script = f"import sys; sys.path[:0] = {path}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


def test_beside_another_automate_in_one_folder(tmp_path: Path) -> None:
    """No file is overwritten: the other's package is imported, and our modules lie in it."""
    other = tmp_path / "automate"
    other.mkdir()
    (other / "__init__.py").write_text("OTHER = True\n")
    assert not (SRC / "automate" / "__init__.py").exists()
    shutil.copytree(SRC / "automate", other, dirs_exist_ok=True)
    code = "import automate, automate.templates as t; print(automate.OTHER, t.register_filter)"
    assert run(code, tmp_path).stdout.startswith("True <")


def test_beside_another_automate_in_another_folder(tmp_path: Path) -> None:
    """It hides our three modules, as the README says; the other four packages are not met."""
    other = tmp_path / "automate"
    other.mkdir()
    (other / "__init__.py").write_text("")
    hidden = run("import automate.templates", tmp_path, SRC)
    assert "No module named 'automate.templates'" in hidden.stderr
    assert run("import automate_connectors.base", tmp_path, SRC).returncode == 0
