"""What only real processes show: workers that are stopped and killed, the receiver, the demo."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm_forks
from leases import lapse

from automate_cli.database import open_storage
from automate_kernel.kernel import Kernel
from command_line import DEADLINE, CommandFolder

CODE = """\
import time
from pathlib import Path
from automate_kernel import Connector, TriggerSpec
from automate_kernel.triggers.webhooks import GitHubSignature

class GitHub(Connector):
    key = "github"

    @classmethod
    def triggers(cls):
        return [TriggerSpec("push", signature=GitHubSignature("HOOK"))]

def automate_configure(kernel):
    kernel.register(GitHub)

    @kernel.action("slow.down")
    def slow(gate: str) -> str:
        while not Path(gate).exists():
            time.sleep(0.01)
        return "done"
"""
WORKFLOW = """\
name: slow
trigger:
  - {type: event, event: go}
  - {type: webhook, connector: github, trigger: push}
steps:
  - id: wait
    action: slow.down
    input: {gate: "{{ event.payload.gate }}"}
"""


class Project(CommandFolder):
    """A project in a folder, and its database."""

    variables = {"AUTOMATE_SECRET_HOOK": "hook-secret"}

    def __init__(self, folder: Path, forks: str) -> None:
        self.folder, self.forks, self.gate = folder, forks, folder / "gate"
        (folder / "automate.toml").write_text('app = "automation"\n[worker]\npoll_seconds = 0.05\n')
        (folder / "automation.py").write_text(CODE)
        (folder / "workflows").mkdir()
        (folder / "workflows" / "slow.yaml").write_text(WORKFLOW)
        self.kernel = Kernel(
            open_storage("sqlite:///automate.sqlite3", folder=folder), secrets={}, discover=False
        )

    def emit(self) -> None:
        self.kernel.emit("go", {"gate": str(self.gate)})

    def status(self) -> str | None:
        found = self.kernel.executions.find()
        return found[0].status.value if found else None

    def holder(self) -> str | None:
        """The worker that runs the step now."""
        found = self.kernel.executions.find()
        if not found or not found[0].steps or found[0].steps[0].status.value != "RUNNING":
            return None
        return self.kernel.outbox.get(found[0].item_id).lease_owner


@pytest.fixture
def project(tmp_path: Path, forks: str) -> Iterator[Project]:
    project = Project(tmp_path, forks)
    yield project
    project.kernel.storage.engine.dispose()


def pid_of(worker_id: str) -> int:
    return int(worker_id.rsplit("-", 2)[1])


def workers(project: Project) -> set[str]:
    return set(re.findall(r"worker (\S+) started", project.log()))


def test_a_killed_worker_is_replaced_and_its_execution_finished(project: Project) -> None:
    """SIGKILL in the middle of a step: another process takes over, and the first is restarted."""
    project.emit()
    with project.running("worker", "--processes", "2") as process:
        first = project.until(project.holder, "the step to run")
        os.kill(pid_of(first), signal.SIGKILL)
        project.until(lambda: not alive(pid_of(first)), "its end")
        lapse(project.kernel, pid_of(first))
        second = project.until(lambda: (h := project.holder()) and h != first and h, "a takeover")
        assert pid_of(second) != pid_of(first)
        project.until(lambda: len(workers(project)) == 3, "a new worker")
        project.gate.touch()
        project.until(lambda: project.status() == "COMPLETED", "the execution to end")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    assert "ended with SIGKILL and is started again" in project.log()
    assert project.kernel.executions.find()[0].steps[0].attempts == 2


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sigterm_drains_and_a_second_one_hands_leases_back(
    project: Project, processes: str
) -> None:
    """The first lets the step end; the second stops at once, and no attempt of the item is spent."""
    project.emit()
    with project.running("worker", "--processes", processes, "--grace-seconds", "300") as process:
        project.until(project.holder, "the step to run")
        project.until(lambda: len(workers(project)) == int(processes), "all workers")
        process.send_signal(signal.SIGTERM)
        item_id = project.kernel.executions.find()[0].item_id
        # Of two that a process has not come to yet the system keeps one.
        project.until(lambda: stopping(project), "the worker to hear of it")
        assert process.poll() is None  # it waits for the step
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    item = project.kernel.outbox.get(item_id)
    assert (item.status.value, item.lease_owner, item.attempt_count) == ("PENDING", None, 0)
    project.gate.touch()
    with project.running("worker", "--processes", processes) as process:
        project.until(lambda: project.status() == "COMPLETED", "the execution to end")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("command", ["serve --port 0", "worker --processes 1"])
def test_a_second_signal_counts_that_comes_while_the_process_is_stopped(
    project: Project, command: str
) -> None:
    """The system may give it to any thread then, and the main thread waits for another one."""
    project.emit()
    with project.running(*command.split(), "--grace-seconds", "300") as process:
        project.until(project.holder, "the step to run")
        [worker] = workers(project)
        process.send_signal(signal.SIGTERM)
        project.until(lambda: stopping(project), "the worker to hear of it")
        process.send_signal(signal.SIGSTOP)
        project.until(lambda: state(process.pid) == "T", "it to be stopped")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(DEADLINE) == 0
    assert f"worker {worker} stopped" in project.log()
    [execution] = project.kernel.executions.find()
    assert project.kernel.outbox.get(execution.item_id).attempt_count == 0


def stopping(project: Project) -> bool:
    """Whether the worker that runs the step is known to have heard a signal."""
    holder = project.holder()
    return any(each.stopping for each in project.kernel.outbox.workers() if each.id == holder)


def test_sigterm_lets_a_running_step_finish(project: Project) -> None:
    """A deployment loses nothing, and repeats nothing."""
    project.emit()
    with project.running("worker") as process:
        project.until(project.holder, "the step to run")
        process.send_signal(signal.SIGTERM)
        project.gate.touch()
        assert process.wait(DEADLINE) == 0
    [execution] = project.kernel.executions.find()
    assert [(s.status.value, s.attempts) for s in execution.steps] == [("COMPLETED", 1)]


@pytest.mark.parametrize("command", ["worker", "worker --processes 2", "serve --port 0"])
def test_a_terminal_that_is_closed_stops_as_sigterm_does(project: Project, command: str) -> None:
    """It sends SIGHUP to all of them: died of it, they would keep the step until its lease ends."""
    project.emit()
    with project.running(*command.split(), "--grace-seconds", "300") as process:
        project.until(project.holder, "the step to run")
        number = 2 if "2" in command else 1
        project.until(lambda: len(workers(project)) == number, "all workers")
        for pid in {process.pid, *map(pid_of, workers(project))}:
            os.kill(pid, signal.SIGHUP)
        project.until(lambda: stopping(project), "the worker to hear of it")
        project.gate.touch()
        assert process.wait(DEADLINE) == 0
    [execution] = project.kernel.executions.find()
    assert [(s.status.value, s.attempts) for s in execution.steps] == [("COMPLETED", 1)]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_or_that_can_not_be_written(
    project: Project, unbuffered: str
) -> None:
    """``| head`` is no error of ours, a full disk is told as such, and a closed output is none."""
    command = [sys.executable, "-m", "automate_cli", "doctor", "--settings"]
    its: dict[str, Any] = {
        "cwd": project.folder, "env": {**os.environ, "PYTHONUNBUFFERED": unbuffered},
        "stderr": subprocess.PIPE, "text": True,
    }  # fmt: skip

    def ends(stdout: int) -> tuple[int, str]:
        with warm_forks.running(project.forks, command, stdout=stdout, **its) as process:
            _, errors = process.communicate(DEADLINE)
            return process.wait(), errors

    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as head:
        assert ends(head.fileno()) == (1, "")
    with Path("/dev/full").open("wb", buffering=0) as full:
        code, told = ends(full.fileno())
    problem = "error: what the command has to write can't be written: No space left on device\n"
    assert (code, told.split("hint")[0]) == (1, problem)
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, check=False, timeout=DEADLINE, **its)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_end_when_what_started_them_is_killed(project: Project) -> None:
    """Nobody is left who would work on, unseen."""
    with project.running("worker", "--processes", "2") as process:
        project.until(lambda: len(workers(project)) == 2, "the workers")
        pids = [pid_of(each) for each in workers(project)]
        process.kill()
        for pid in pids:
            project.until(lambda pid=pid: not alive(pid), f"process {pid} to end")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        # Without a parent that waits for it, an ended process stays as a zombie.
        return state(pid) != "Z"
    return True


def state(pid: int) -> str:
    """Return the letter that the system shows for the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def request(url: str, body: bytes | None = None, **headers: str) -> tuple[int, object]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=DEADLINE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_serve_receives_and_works_and_stops(project: Project) -> None:
    """Webhooks and events over HTTP, run by the workers beside; SIGTERM ends all of it."""
    from automate_kernel.triggers.webhooks import GitHubSignature

    project.gate.touch()
    variables = {"AUTOMATE_SERVE_EVENTS_TOKEN": "$secret:EVENTS", "AUTOMATE_SECRET_EVENTS": "t0ken"}
    with project.running("serve", "--port", "0", **variables) as process:
        lines = iter(process.stdout.readline, "")
        url = next(line for line in lines if line.startswith("listening on ")).split()[-1]
        body = json.dumps({"gate": str(project.gate)}).encode()
        signed = GitHubSignature("HOOK").sign(body, "hook-secret")
        project.until(lambda: request(f"{url}/readyz")[0] == 200, "its workers")
        assert request(f"{url}/webhooks/github/push", body, **signed)[0] == 202
        assert request(f"{url}/webhooks/github/push", body + b" ", **signed)[0] == 401
        event = json.dumps({"name": "go", "payload": {"gate": str(project.gate)}}).encode()
        assert request(f"{url}/events", event)[0] == 401
        assert request(f"{url}/events", event, Authorization="Bearer t0ken")[0] == 202

        def done() -> bool:
            return [e.status.value for e in project.kernel.executions.find()] == ["COMPLETED"] * 2

        project.until(done, "both executions to end")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    assert "t0ken" not in project.log()


def test_serve_does_not_start_without_the_token_that_it_is_to_ask_for(project: Project) -> None:
    """It fails closed, with the remedy."""
    with project.running("serve", AUTOMATE_SERVE_EVENTS_TOKEN="$secret:EVENTS") as process:
        assert process.wait(DEADLINE) == 1
    assert "AUTOMATE_SECRET_EVENTS" in project.log()


def test_run_reads_standard_input_and_survives_a_closed_pipe(project: Project) -> None:
    """As part of a pipeline of the shell."""
    project.gate.touch()
    command = (
        f'echo \'{{"gate": "{project.gate}"}}\' | '
        f"{sys.executable} -m automate_cli run slow --event - --json | head -1"
    )
    done = subprocess.run(
        command, shell=True, cwd=project.folder, text=True, capture_output=True, timeout=DEADLINE,
        env={**os.environ, "AUTOMATE_SECRET_HOOK": "x"},
    )  # fmt: skip
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_a_terminal_without_our_characters_is_shown_something(tmp_path: Path) -> None:
    """Not an error: neither for what we print nor for a name in another alphabet."""
    (tmp_path / "tee.yaml").write_text(
        "name: tee\ndescription: 茶\ntrigger: {type: manual}\nsteps: [{id: brew, sleep: 1ms}]\n",
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "automate_cli", "workflow", "validate", "tee.yaml"],
        text=True, capture_output=True, timeout=DEADLINE, cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\\u2713 tee\n")


def test_the_command_line_starts_without_what_it_does_not_need() -> None:
    """Help and version load no database library, no server and no workflow engine."""
    code = (
        "import sys; from automate_cli.app import app\n"
        "slow = {'sqlalchemy', 'uvicorn', 'jinja2', 'httpx', 'yaml', 'automate_kernel.kernel'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout == "[]\n"


def test_the_demo_does_what_it_says(tmp_path: Path) -> None:
    """Everything that it tells is true of its database, and it leaves nothing behind."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "AUTOMATE_DATABASE": "sqlite:///no"}
    done = subprocess.run(
        [sys.executable, "-m", "automate_cli", "demo", "--json"],
        text=True, capture_output=True, timeout=280, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True, told["checks"]
    assert [each["status"] for each in told["responses"]] == [202, 202, 401, 200]
    order = next(e for e in told["executions"] if e["workflow"] == "order-fulfilment")
    attempts = {step["step_id"]: step["attempts"] for step in order["steps"]}
    killed = told["killed"]
    # What was saved before the kill stays, however often a busy worker had lost its lease by then.
    assert {step: attempts[step] for step in ("total", "reserve")} == {
        step: killed["attempts_before"][step] for step in ("total", "reserve")
    }
    assert attempts["reserve"] >= 3
    assert attempts["invoice"] > killed["attempts_before"]["invoice"] >= 1
    (item,) = (each for each in told["items"] if each["id"] == order["item_id"])
    # The error names who lost it last: after the killed one nobody did, or the step ran again.
    assert attempts["notify"] == 1 or killed["worker"] not in item["last_error"]
    assert killed["worker"] != killed["taken_over_by"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_demo_that_is_kept_is_a_project_to_go_on_with(tmp_path: Path) -> None:
    """Its text says what happened, and the command that it ends with works."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"}
    run = lambda *a, **o: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "automate_cli", *a],
        text=True, capture_output=True, timeout=280, env=environment, check=True, **o,
    )  # fmt: skip
    out = run("demo", "--keep").stdout
    assert "\x1b" not in out
    wide = [line for line in out.splitlines() if len(line) > 80]
    assert [line for line in wide if str(tmp_path) not in line] == []
    for told in ("401  the order, its price changed", "took it over after", "✓ no secret is in"):
        assert told in out
    folder, execution_id = re.search(r"cd (\S+)\nautomate executions show (\S+)", out).groups()
    assert "order-fulfilment" in run("executions", "show", execution_id, cwd=folder).stdout
