"""Looking at a running outbox from the command line: watch, top, probes, logs as JSON."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import select
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import StorageError
from automate_cli.app import app
from automate_cli.database import open_storage
from automate_cli.output import Output
from automate_cli.overview import Watch
from automate_cli.command_output import written_output
from automate_kernel.kernel import Kernel
from automate_kernel.outbox import WorkerInfo
from automate_kernel.worker.reporter import ActivityLog
from automate_kernel.worker.in_flight import Task
from automate_kernel.outbox.item import Outcome
from command_line import DEADLINE, CliRunner, CommandFolder

CODE = """\
import logging
import time

def automate_configure(kernel):
    @kernel.handler("mail.send")
    def send(item):
        logging.getLogger("shop").warning("sending")

    @kernel.handler("hang")
    def hang(item):
        time.sleep(3600)
"""


class Project(CommandFolder):
    """A folder with settings, code and a database."""

    def __init__(self, folder: Path, forks: str) -> None:
        self.folder, self.forks = folder, forks
        (folder / "shopcode.py").write_text(CODE)
        (folder / "automate.toml").write_text('app = "shopcode"\n[worker]\npoll_seconds = 0.05\n')
        storage = open_storage("sqlite:///automate.sqlite3", folder=folder)
        self.kernel = Kernel(storage, secrets={}, discover=False)

    def environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}

    def work(self, kind: str, seconds: float = 0.02) -> None:
        """Have an item done by a worker that is listed from now on."""
        outbox, log = self.kernel.outbox, ActivityLog()
        outbox.enqueue(kind)
        (item,) = outbox.claim_batch("worker-7", kinds=[kind])
        task = Task(item, 1.0)
        task.started_at, task.ended_at = 1.0, 1.0 + seconds
        log.add([(task, Outcome(item.id))], ())
        outbox.acknowledge("worker-7", [Outcome(item.id)])
        outbox.report(WorkerInfo("worker-7", "host-1", 7, None, None, (kind,), 10, 3), log)

    def urls(self, count: int) -> list[str]:
        found = self.until(
            lambda: len(u := re.findall(r"metrics on (http://[\d.:]+)", self.log())) >= count and u,
            "the probes",
        )
        return list(found)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: str) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith("AUTOMATE_")]:
        monkeypatch.delenv(name)
    project = Project(tmp_path, forks)
    yield project
    project.kernel.storage.engine.dispose()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), prog_name="automate")
    assert result.exit_code == code, result.output
    return result.output


# -- watching ----------------------------------------------------------------------------------------


class Looks:
    """Something to watch that ends by Ctrl-C after some looks."""

    def __init__(self, *found: Any) -> None:
        self.found = list(found)

    def __call__(self) -> Any:
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        if not self.found:
            raise KeyboardInterrupt


def watch(looks: Looks, *, json: bool = False) -> None:
    Watch(
        Output(json=json), looks, lambda found: str(found), lambda found: f"saw {found}",
        lambda found: {"saw": found},
    ).run(1.0, sleep=looks.sleep)  # fmt: skip


def test_without_a_terminal_each_look_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """So that it can go to a file; Ctrl-C ends it well."""
    watch(Looks(1, 2))
    assert capsys.readouterr().out == "saw 1\nsaw 2\n"


def test_with_json_each_look_is_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    """One a line."""
    watch(Looks(1, 2), json=True)
    out = capsys.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == [{"saw": 1}, {"saw": 2}]


def test_a_database_that_is_away_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told of on standard error, once it has answered before."""
    watch(Looks(1, StorageError("connection refused"), 2))
    captured = capsys.readouterr()
    assert captured.out == "saw 1\nsaw 2\n"
    assert captured.err == "no answer: connection refused\n"
    with pytest.raises(StorageError):
        watch(Looks(StorageError("connection refused")))


def in_terminal(arguments: list[str], until_shown: str, project: Project, columns: int) -> str:
    """What a terminal of so many columns gets, until it shows a text; then Ctrl-C."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project.folder)
        environment = {**project.environment(), "TERM": "xterm", "COLUMNS": str(columns)}
        os.execve(sys.executable, [sys.executable, "-m", "automate_cli", *arguments], environment)  # fmt: skip
    shown, deadline, told = "", time.monotonic() + DEADLINE, False
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
        if not told and until_shown in shown:
            os.kill(pid, signal.SIGINT)
            told = True
    else:
        os.kill(pid, signal.SIGKILL)  # else nobody would end it
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    return shown


def test_top_in_a_terminal(project: Project) -> None:
    """Drawn in place, on a screen of its own, with what fits; Ctrl-C gives the screen back."""
    project.work("mail.send")
    shown = in_terminal(["top", "--every", "0.2"], "worker-7", project, 90)
    assert "\x1b[?1049h" in shown and "\x1b[?1049l" in shown
    assert "mail.send" in shown and "RUN P95" in shown
    assert "RETRY/MIN" not in shown


# -- top ---------------------------------------------------------------------------------------------


def test_top_once(project: Project) -> None:
    """Rate, latencies, counts and workers, in a table for people."""
    for _ in range(3):
        project.work("mail.send")
    project.kernel.outbox.enqueue("other")
    project.kernel.outbox.pause("other")
    out = run("top", "--once")
    assert "1 worker" in out and "3 of 10 slots" in out and "paused: other" in out
    (row,) = [line for line in out.splitlines() if line.startswith("mail.send")]
    assert re.search(r"mail.send +0\.\d/s +[12]\d ms +[12]\d ms", row), row
    (worker,) = [line for line in out.splitlines() if line.startswith("worker-7")]
    assert re.search(r"worker-7 +host-1 +7 .* 3 +10 .* ok", worker), worker


def test_top_as_json(project: Project) -> None:
    """The same for programs, in seconds."""
    project.work("mail.send", seconds=0.5)
    found = json.loads(run("top", "--once", "--json"))
    (kind,) = found["kinds"]
    assert kind["kind"] == "mail.send"
    assert kind["run_p95"] == pytest.approx(0.5, rel=0.15)
    assert (kind["waiting"], kind["running"], kind["failed"]) == (0, 0, 0)
    (worker,) = found["workers"]
    assert (worker["id"], worker["in_flight"], worker["lost"]) == ("worker-7", 3, False)


def test_top_of_an_empty_outbox(project: Project) -> None:
    """It says so."""
    out = run("top", "--once")
    assert "the outbox is empty" in out and "no worker is running" in out


# -- workers -----------------------------------------------------------------------------------------


def test_a_worker_answers_probes_and_logs_json(project: Project) -> None:
    """Health, readiness and metrics over HTTP, and logs with the id of their item."""
    item_id = project.kernel.outbox.enqueue("mail.send")
    with project.running(
        "worker", "--health-port", "0", "--metrics-port", "0", "--log-format", "json"
    ) as process:
        health, metrics = project.urls(2)
        project.until(lambda: get(f"{health}/readyz")[0] == 200, "readiness")
        assert get(f"{health}/healthz") == (200, '{"status": "ok"}')
        done = 'automate_outbox_items{kind="mail.send",status="COMPLETED"} 1'
        project.until(lambda: done in get(f"{metrics}/metrics")[1], "the item")
        # It may do an item before it has reported for the first time.
        running = 'automate_workers{state="running"} 1'
        project.until(lambda: running in get(f"{metrics}/metrics")[1], "its report")
        process.terminate()
        assert process.wait(DEADLINE) == 0
    logged = [json.loads(line) for line in project.log().splitlines()]
    (sending,) = [line for line in logged if line["message"] == "sending"]
    assert (sending["item_id"], sending["kind"]) == (item_id, "mail.send")
    assert project.kernel.outbox.workers() == []


def test_several_processes_answer_as_one(project: Project) -> None:
    """Ready once one of them works; a process that is killed is no reason to kill the others."""
    with project.running("worker", "--processes", "2", "--health-port", "0") as process:
        (health,) = project.urls(1)
        project.until(lambda: get(f"{health}/readyz")[0] == 200, "readiness")
        project.until(lambda: len(project.kernel.outbox.workers()) == 2, "both workers")
        victim = project.kernel.outbox.workers()[0].pid
        os.kill(victim, signal.SIGKILL)
        assert get(f"{health}/healthz")[0] == 200
        project.until(
            lambda: len({w.pid for w in project.kernel.outbox.workers()} - {victim}) == 2,
            "a new process",
        )
        assert get(f"{health}/healthz")[0] == 200
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_a_port_that_is_taken_ends_the_worker(project: Project) -> None:
    """With a sentence, before anything is claimed."""
    item_id = project.kernel.outbox.enqueue("mail.send")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        second = project.kernel.outbox.enqueue("mail.send")
        out = run("worker", "--metrics-port", port, code=2)
    assert f"can't listen on 127.0.0.1:{port}" in out
    assert project.kernel.outbox.get(item_id) is not None
    assert project.kernel.outbox.get(second).attempt_count == 0


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_reader_that_has_enough_ends_a_command_whose_output_is_no_file(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an application has put its own stream there: nothing else goes wrong in turn."""
    monkeypatch.setattr("sys.stdout", stream)
    with pytest.raises(SystemExit, match="1"), written_output():
        raise BrokenPipeError(errno.EPIPE, "its reader is gone")


def test_a_note_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker's thread that logs meanwhile gets into the address that `mcp serve` tells."""
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr("sys.stderr", Stream())
    Output().note("MCP at http://127.0.0.1:8080/mcp")
    assert [text for text in written if text] == ["MCP at http://127.0.0.1:8080/mcp\n"]
