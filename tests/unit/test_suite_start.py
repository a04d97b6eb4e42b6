"""What an author waits for before the first test of a new plugin: it must stay little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from automate_testing.authoring.scaffold import SCAFFOLD_KINDS, Scaffold


def run(*arguments: object, folder: Path) -> str:
    """What Python prints in *folder*, as an author runs it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout


QUICK = [kind for kind in SCAFFOLD_KINDS if kind not in ("provider", "store")]


@pytest.mark.parametrize("kinds", [QUICK, ["provider"]], ids="-".join)
def test_the_tests_of_a_new_plugin_run_before_it_is_installed(
    tmp_path: Path, kinds: list[str]
) -> None:
    """The manifest and the example are compared with what its pyproject.toml announces."""
    folder = Scaffold.named("not-installed", kinds).write(tmp_path)
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=folder)
    assert " passed" in printed and "failed" not in printed and "skipped" not in printed, printed
    package = folder / "src" / "automate_not_installed"
    code = package / ("connector.py" if "connector" in kinds else "provider.py")
    code.write_text(
        code.read_text().replace(
            'key = "not_installed"\n', 'key = "not_installed"\n    oauth = None\n'
        )
    )
    (package / "example.yaml").write_text(
        "name: x\ntrigger: {type: manual}\nsteps: [{id: a, action: not_installed.gone}]\n"
    )
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=folder)
    assert "account is new" in printed, printed
    assert "has no action 'gone'" in printed or "no capability 'gone'" in printed, printed


def test_a_suite_that_needs_no_kernel_imports_none(tmp_path: Path) -> None:
    """It is half of what there is to import."""
    contracts = "secrets outbox output_store filters".split()
    imports = ", ".join(f"automate_testing.contracts.{each}" for each in contracts)
    code = f"import sys, {imports}; print('automate_kernel.kernel' in sys.modules)"
    assert run("-c", code, folder=tmp_path) == "False\n"


def test_values_are_tried_without_a_table_of_all_characters(tmp_path: Path) -> None:
    """Hypothesis makes it in each new project, which takes longer than most suites."""
    code = (
        "from automate_testing.contracts.values import each_value, is_json; seen = []\n"
        "each_value(seen.append)\nprint(len(seen), sum(map(is_json, seen)) > 50)"
    )
    assert run("-c", code, folder=tmp_path) == "100 True\n"
    assert not (tmp_path / ".hypothesis" / "unicode_data").exists()
