"""The demonstration says what it waits for, and shows its receiver's log when it fails."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from automate_kernel import AutomateError
from automate_cli import demo as module
from automate_cli.demo import Demonstration, project
from automate_cli.output import Output

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a demonstration says while it waits, whose time passes with its sleep alone."""
    now, said = [0.0], list[str]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    passing = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(module, "time", passing)
    monkeypatch.setattr(Output, "note", lambda self, text: said.append(text))
    return said


def test_a_long_wait_is_told_and_its_end_shows_the_log(hurried: list[str]) -> None:
    """Who waits hears for what; a failure brings the end of the log, and where the rest is."""
    with Demonstration.prepared(Output()) as demo:
        log = demo.folder / "serve.log"
        log.write_text("".join(f"line {number}\n" for number in range(100)))
        with pytest.raises(AutomateError) as caught:
            demo.until("a worker", lambda: None)
        assert "line 99" in caught.value.message
        assert "line 80" not in caught.value.message
        assert str(demo.folder) in str(caught.value.hint)
        assert "   15 s: still waiting for a worker" in hurried
        log.write_text("")
        with pytest.raises(AutomateError, match="its log is empty"):
            demo.until("a worker", lambda: None)
        demo.keep = False
    assert not demo.folder.exists()


def test_the_slow_step_goes_on_until_it_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the demonstration looks, the worker that it is to kill is still at the step."""
    with Demonstration.prepared(Output()) as demo:
        project = runpy.run_path(str(demo.folder / "automation.py"))
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 1000:
                demo.no_paper.unlink()

        invoice = project["invoice"]
        monkeypatch.setitem(invoice.__globals__, "time", SimpleNamespace(sleep=sleep))
        made = invoice("cs_123456", 4990, SimpleNamespace(attempt=2))
        assert (made["number"], len(slept)) == ("R-123456", 1000)


def test_a_busy_machine_has_minutes() -> None:
    """What takes a second on a quiet machine may take far more on one with nine other jobs."""
    assert module._DEADLINE >= 180


@pytest.mark.slow
def test_the_wheel_holds_the_project(tmp_path: Path) -> None:
    """Each file of ``examples/demo`` is where the installed command looks for it."""
    if shutil.which("uv") is None:
        pytest.skip("uv builds the wheel")
    subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    own = {path.relative_to(project()) for path in project().rglob("*") if path.is_file()}
    files = {each for each in own if "__pycache__" not in each.parts}
    assert {f"automate_cli/demo_project/{each.as_posix()}" for each in files} <= names
    assert Path("automate.toml") in files
