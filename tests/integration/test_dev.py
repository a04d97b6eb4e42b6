"""`automate init` and `automate dev`: a project is made, served, and loaded again when it changes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from dev_process import ENVIRONMENT, Dev
from waiting import until
from warm_forks import ended

from automate_cli.file_poll import FilePoll
from automate_cli.starter import _source, make_project
from automate_kernel import ConfigError

ROOT = Path(__file__).parents[2]


def replacing(before: str, after: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert before in text
        return text.replace(before, after)

    return change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


# -- the project -----------------------------------------------------------------------------


def test_a_project_is_made_and_nothing_is_overwritten(folder: Path) -> None:
    (folder / ".gitignore").write_text("mine")
    made = make_project(folder)
    assert made == ["automate.toml", "automation.py", "workflows/order.test.yaml",
                    "workflows/order.yaml"]  # fmt: skip
    assert (folder / ".gitignore").read_text() == "mine"
    (folder / "automate.toml").unlink()
    with pytest.raises(ConfigError, match="automation.py, .* are there already"):
        make_project(folder)
    assert not (folder / "automate.toml").exists()


def test_the_project_passes_its_own_test(folder: Path, forks: str) -> None:
    make_project(folder)
    for command in ("validate", "test"):
        words = ["-m", "automate_cli", "workflow", command]
        code, *printed = ended(forks, words, ENVIRONMENT, folder=folder, seconds=60)
        assert code == 0, printed


@pytest.mark.slow
def test_the_wheel_holds_the_project(tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv builds the wheel")
    subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    own = {path.relative_to(_source()) for path in _source().rglob("*") if path.is_file()}
    files = {each for each in own if "__pycache__" not in each.parts}
    assert {f"automate_cli/starter_project/{each.as_posix()}" for each in files} <= names


# -- what counts as a change -----------------------------------------------------------------


def test_a_change_counts_once_the_files_are_at_rest(folder: Path) -> None:
    (folder / "workflows").mkdir()
    for name in (".venv", "env/lib", "node_modules"):
        (folder / name).mkdir(parents=True)
    (folder / "env/pyvenv.cfg").touch()
    code, elsewhere = folder / "code.py", folder.parent / "lib.py"
    code.write_text("1")
    elsewhere.write_text("1")
    poll = FilePoll(folder, [folder / "workflows"])
    poll.add([str(elsewhere)])
    assert poll.changed() == []
    code.write_text("12")
    assert poll.changed() == []  # it may be half written
    code.write_text("123")
    assert poll.changed() == []
    assert poll.changed() == ["code.py"]
    assert poll.changed() == []
    for name in (".venv/a.py", "env/lib/b.py", "node_modules/c.py", "data.json", "notes.txt"):
        (folder / name).touch()
    (folder / "workflows/order.json").touch()
    elsewhere.unlink()
    code.rename(folder / "renamed.py")
    assert poll.changed() == []
    changed = ["code.py", "renamed.py", "workflows/order.json"]
    assert poll.changed() == sorted([*changed, str(elsewhere)], key=lambda name: str(folder / name))


# -- a session -------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_empty_folder_shows_a_run_and_every_change(folder: Path, forks: str) -> None:
    with Dev(folder, "--port", "0", forks=forks) as dev:
        assert "Made .gitignore, automate.toml" in dev.says("loaded in .* delivery, order")
        dev.says("COMPLETED order .* in ")
        assert "COMPLETED" in dev.get()

        dev.edit("workflows/order.yaml", replacing("orders.price", "orders.prize"))
        said = dev.says("goes on")
        assert "error: workflows/order.yaml:9: steps.price.action: there is no action" in said
        until(lambda: "order.yaml:9: steps.price.action" in dev.get("/ui/workflows/order"))
        page = dev.get("/ui/workflows/order")
        assert "The last state that could be loaded goes on" in page
        assert "orders.prize" not in page.split("goes on")[1]
        dev.edit("workflows/order.yaml", replacing("orders.prize", "orders.price"))
        dev.says("loaded in")
        until(lambda: "goes on" not in dev.get())

        dev.edit("automation.py", replacing("return {", "retrun {"))
        assert "error: automation.py:15: SyntaxError: invalid syntax\n    retrun {" in dev.says(
            "goes on"
        )
        until(lambda: "automation.py:15: SyntaxError" in dev.get())
        dev.edit("automation.py", replacing("retrun {", "return {"))
        dev.says("loaded in")
        dev.edit("automation.py", lambda text: f"{text}\nimport os\nos._exit(7)\n")
        assert "error: the code ended its process with exit code 7" in dev.says("goes on")

        (folder / "workflows/more.yaml").write_text(
            "name: more\ntrigger: {type: manual}\nsteps: [{id: a, sleep: 1s}]\n"
        )
        dev.edit("automation.py", lambda text: text.partition("\nimport os\n")[0])
        dev.says("loaded in .* delivery, more, order")
        until(lambda: "more" in dev.get("/ui/workflows"))

        os.killpg(dev.process.pid, signal.SIGINT)  # as a terminal does
        assert dev.process.wait(30) == 0
        dev.says("stopped")
        until(lambda: not group_of(dev.process.pid))


def group_of(leader: int) -> bool:
    """Is anybody left of what the process has started?"""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, 0)
        return True
    return False


@pytest.mark.slow
def test_a_broken_project_is_shown_from_the_start(folder: Path, forks: str) -> None:
    make_project(folder)
    whole = (folder / "automation.py").read_text()
    (folder / "automation.py").write_text(f"{whole}\nnothing()\n")
    with Dev(folder, "--port", "0", forks=forks) as dev:
        dev.says("error: automation.py:38: NameError")
        until(lambda: "Nothing runs meanwhile" in dev.get())
        (folder / "automation.py").write_text(whole)
        dev.says("loaded in")
        until(lambda: "Nothing runs meanwhile" not in dev.get())
        dev.process.kill()  # nothing is left behind, however it ends
        dev.process.wait(30)
        until(lambda: not group_of(dev.process.pid))


@pytest.mark.slow
def test_only_this_machine_by_its_own_name(folder: Path, forks: str) -> None:
    with Dev(folder, "--port", "0", forks=forks) as dev:
        dev.says("loaded in")
        assert dev.get(Host="evil.example") == "401"
        assert dev.get(Origin="http://evil.example") == "401"
        assert dev.get("/ui/", Origin=dev.url) != "401"
        port = dev.url.rpartition(":")[2]
        words = ["-m", "automate_cli", "dev", "--port", port]
        code, _, errors = ended(forks, words, ENVIRONMENT, folder=folder, seconds=60)
        assert code == 2
        assert f"error: port {port} is in use" in errors
        other = int(re.findall(r"automate dev --port (\d+)", errors)[0])
        socket.create_server(("127.0.0.1", other)).close()


STEPS = """
import os, time
from pathlib import Path
from automate_kernel import Automation
automation = Automation()
VERSION = 1

@automation.action("slow", idempotent=True)
def slow(name: str) -> int:
    log, end = Path(__file__).with_name("log.txt"), Path(__file__).with_name(name)
    def note(word):
        with log.open("a") as file:
            file.write(f"{name} {word} {VERSION}\\n")
    note("begins")
    while not end.exists():
        time.sleep(0.05)
    note("ends")
    return VERSION
"""
SLOW = """
name: slow
trigger: {type: event, event: go}
steps:
  - {id: a, action: slow, input: "{{ event.payload }}"}
"""


@pytest.mark.slow
def test_running_steps_end_before_new_code_begins(folder: Path, forks: str) -> None:
    """A step that takes too long is handed back, and runs again in the new code: never beside it."""
    (folder / "workflows").mkdir()
    (folder / "workflows/slow.yaml").write_text(SLOW)
    (folder / "automation.py").write_text(STEPS)
    (folder / "automate.toml").write_text('app = "automation"\n[worker]\npoll_seconds = 0.1\n')
    log = folder / "log.txt"

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    def emit(payload: str) -> None:
        words = ["-m", "automate_cli", "emit", "go", payload]
        assert ended(forks, words, ENVIRONMENT, folder=folder, seconds=60)[0] == 0

    with Dev(folder, "--port", "0", forks=forks) as dev:
        dev.says("loaded in")
        emit('{"name": "short"}')
        until(lambda: lines() == ["short begins 1"], 60)
        dev.edit("automation.py", replacing("VERSION = 1", "VERSION = 2"))
        dev.says("changed")
        (folder / "short").touch()
        dev.says("loaded in")
        assert lines() == ["short begins 1", "short ends 1"]
        emit('{"name": "long"}')
        until(lambda: lines()[2:] == ["long begins 2"], 60)
        dev.edit("automation.py", replacing("VERSION = 2", "VERSION = 3"))
        dev.says("loaded in")
        (folder / "long").touch()
        dev.says("COMPLETED slow .* in ")
        assert lines()[2:] == ["long begins 2", "long begins 3", "long ends 3"]
