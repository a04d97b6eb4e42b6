"""Whether a worker is alive and ready, and how an orchestrator is told."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from machines import no_more_threads
from ports import free_ports
from waiting import PATIENCE, until
from automate_kernel import ConfigError, Kernel, StorageError
from automate_kernel.worker import Worker
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.worker.periodic import note_tries, try_for
from automate_kernel.workflows.drive.engine import Engine
from automate_kernel.http import pages
from automate_kernel.http.answers import HttpAnswer
from automate_kernel.http import probes as serving
from automate_kernel.monitoring.health import ProcessesProbe, WorkerProbe, keep_reporting
from automate_kernel.http.probes import Probes


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@contextmanager
def working(kernel: Kernel, **options: Any) -> Iterator[Worker]:
    worker = kernel.worker(poll_seconds=0.02, **options)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        until(lambda: worker.liveness.began)
        yield worker
    finally:
        worker.stop(abandon=True)
        thread.join(PATIENCE)


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# -- signs of life -----------------------------------------------------------------------------------


def test_a_thread_that_does_not_move_is_stuck(time: Time) -> None:
    """After a minute; one that rests may do so for ever."""
    liveness = Liveness(time)
    liveness.claiming()
    liveness.claimed()
    liveness.move("acknowledger")
    liveness.rest("acknowledger")
    time.now += 59
    liveness.move("heartbeat")
    assert liveness.stuck() == []
    time.now += 2
    assert liveness.stuck() == ["fetcher"]
    liveness.claiming()
    assert liveness.stuck() == []


@pytest.mark.parametrize(("thread", "hangs"), [("intake", "begin_events"), ("committer", "save")])
def test_an_engine_that_hangs_is_stuck(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, thread: str, hangs: str
) -> None:
    """What begins executions, and what saves them; once it goes on it is not."""
    go, reached = threading.Event(), threading.Event()
    real = getattr(kernel._runner, hangs)

    def hang(*given: Any, **options: Any) -> Any:
        reached.set()
        assert go.wait(PATIENCE)
        return real(*given, **options)

    monkeypatch.setattr(kernel._runner, hangs, hang)
    monkeypatch.setattr(Engine, "_save", lambda engine, driven, turn: _put(engine, driven, turn))
    kernel.action("look")(lambda: None)
    steps = [{"id": "look", "action": "look"}]
    kernel.add_workflow({"name": "w", "trigger": {"type": "event", "event": "e"}, "steps": steps})
    kernel.emit("e")
    with working(kernel) as worker:
        assert reached.wait(PATIENCE)
        try:
            assert thread in worker.liveness.stuck(longest=-1)
        finally:
            go.set()
        until(lambda: kernel.executions.find(status="COMPLETED"))
        until(lambda: thread not in worker.liveness.stuck(longest=-1))


def _put(engine: Engine, driven: Any, turn: Any) -> None:
    driven.saving = turn
    engine._dirty.put(driven)


def test_a_thread_that_tries_again_moves(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away for long makes nobody start the worker again."""
    liveness, tries = Liveness(time), [0]
    liveness.move("intake")

    def away() -> str:
        assert liveness.stuck() == []
        time.now += 50
        tries[0] += 1
        if tries[0] < 3:
            raise StorageError("away")
        return "done"

    def work() -> None:
        note_tries(lambda: liveness.move("intake"))
        results.append(try_for(600, away, "saving", until=lambda: False))

    results = list[str]()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert results == ["done"]


def test_a_worker_that_waits_for_its_database_is_alive_and_not_ready(time: Time) -> None:
    """Tries that fail are moves; that none succeeds shows in readiness."""
    liveness = Liveness(time)
    liveness.claiming()
    liveness.claimed()
    for _ in range(20):
        time.now += 25
        liveness.claiming()
    assert liveness.stuck() == []
    assert liveness.failing()
    liveness.claimed()
    assert not liveness.failing()


def test_a_running_worker_is_alive_and_ready(kernel: Kernel) -> None:
    """And when it stops, it is alive still, and no longer ready."""
    with working(kernel) as worker:
        probe = WorkerProbe(kernel, worker)
        assert probe.live() == []
        assert probe.ready() == []
        worker.stop()
        assert probe.live() == []
        assert probe.ready() == ["it is stopping"]


def test_a_worker_that_has_not_begun_is_not_ready(kernel: Kernel) -> None:
    """It has claimed nothing yet, and is not to be killed for it."""
    probe = WorkerProbe(kernel, kernel.worker())
    assert (probe.live(), probe.ready()) == ([], ["it has not begun"])


def test_a_fetcher_that_hangs_is_noticed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though every other thread goes on, and answers."""
    hang = threading.Event()
    time = Time()
    with working(kernel, report_seconds=0.02) as worker:
        claim = kernel.outbox.claim_batch
        entered = threading.Event()

        def stuck(*arguments: Any, **options: Any) -> Any:
            entered.set()
            hang.wait(PATIENCE)
            return claim(*arguments, **options)

        monkeypatch.setattr(kernel.outbox, "claim_ahead", stuck)
        monkeypatch.setattr(worker.liveness, "_clock", time)
        kernel.outbox.enqueue("wakes.it")
        assert entered.wait(PATIENCE)
        time.now += 10_000_000
        probe = WorkerProbe(kernel, worker)
        until(lambda: probe.live() == ["the fetcher is stuck"])
        assert "the fetcher is stuck" in probe.ready()
        hang.set()
        until(lambda: probe.live() == [])


def test_a_database_that_is_down_is_no_reason_to_start_anew(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker goes on trying; the answer does not show what the database said."""
    with working(kernel) as worker:

        def down(*arguments: Any, **options: Any) -> Any:
            raise StorageError("can't connect to db.internal")

        monkeypatch.setattr(kernel.outbox, "next_due_seconds", down)
        probe = WorkerProbe(kernel, worker)
        assert probe.live() == []
        assert probe.ready() == ["the database can't be used"]


# -- over HTTP ---------------------------------------------------------------------------------------


def test_pages(kernel: Kernel) -> None:
    """Health, readiness and metrics, each on its own port, and nothing else."""
    kernel.outbox.enqueue("k")
    with (
        working(kernel) as worker,
        Probes(kernel, WorkerProbe(kernel, worker), health_port=0, metrics_port=0) as probes,
    ):
        health, metrics = probes.urls
        assert get(f"{health}/healthz") == (200, '{"status": "ok"}')
        assert get(f"{health}/readyz?verbose") == (200, '{"status": "ready"}')
        status, page = get(f"{metrics}/metrics")
        assert status == 200
        assert 'automate_outbox_items{kind="k",status="PENDING"} 1' in page
        assert get(f"{health}/metrics")[0] == get(f"{metrics}/healthz")[0] == 404
        assert get(f"{health}/")[0] == 404
        worker.stop()
        status, page = get(f"{health}/readyz")
        assert (status, json.loads(page)["problems"]) == (503, ["it is stopping"])
        assert get(f"{health}/healthz")[0] == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{health}/healthz", timeout=PATIENCE)


def test_one_port_for_all(kernel: Kernel) -> None:
    """Where both ports are the same, all pages are there."""
    (port,) = free_ports(1)
    probe = WorkerProbe(kernel, kernel.worker())
    with Probes(kernel, probe, health_port=port, metrics_port=port) as probes:
        (url,) = probes.urls
        assert [get(f"{url}/{each}")[0] for each in ("healthz", "readyz", "metrics")] == [
            200, 503, 200,
        ]  # fmt: skip


def test_a_database_that_does_not_answer_holds_up_no_liveness(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness and metrics give up after a while; liveness asks nobody."""
    hang = threading.Event()
    monkeypatch.setattr(pages, "_ANSWER_SECONDS", 0.1)
    with working(kernel) as worker:
        monkeypatch.setattr(kernel.outbox, "next_due_seconds", lambda: hang.wait(PATIENCE))
        probe = WorkerProbe(kernel, worker)
        with Probes(kernel, probe, health_port=0, metrics_port=0) as probes:
            health, metrics = probes.urls
            for _ in range(3):
                assert json.loads(get(f"{health}/readyz")[1])["problems"] == ["no answer"]
            assert get(f"{metrics}/metrics") == (503, "")
            assert get(f"{health}/healthz")[0] == 200
            hang.set()
            until(lambda: get(f"{metrics}/metrics")[0] == 200)


def test_a_machine_without_threads_has_the_next_page_begin_one() -> None:
    """An orchestrator that hears of a late database for ever would end the worker."""
    thread = pages.PageThread()
    page = pages.HttpPage(lambda: HttpAnswer(200, ""), HttpAnswer(503, ""))
    with no_more_threads("automate-pages"), pytest.raises(RuntimeError, match="thread"):
        thread.answer(page)
    assert thread.answer(page).status == 200
    thread.close()


def test_a_port_that_is_taken_is_told_of(kernel: Kernel) -> None:
    """By a sentence, and what was opened before is closed."""
    with Probes(kernel, metrics_port=0) as probes:
        port = int(probes.urls[0].rpartition(":")[2])
        with (
            pytest.raises(ConfigError, match=f"127.0.0.1:{port}"),
            Probes(kernel, metrics_port=port),
        ):
            pass


def test_a_client_that_never_ends_its_request_is_cut_off(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it sends something now and then: else each would keep a thread for ever."""
    monkeypatch.setattr(serving._ProbeHandler, "request_seconds", 0.3)
    with Probes(kernel, metrics_port=0) as probes:
        port = int(probes.urls[0].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            ended, drip = threading.Event(), 0
            connection.settimeout(0.05)
            while not ended.is_set() and drip < 20 * PATIENCE:
                drip += 1
                try:
                    connection.sendall(b"x")  # never a whole line
                    if connection.recv(1) == b"":
                        ended.set()
                except TimeoutError:
                    continue
                except OSError:
                    ended.set()
            assert ended.is_set()


# -- several processes -------------------------------------------------------------------------------


def test_the_board_tells_of_processes(time: Time) -> None:
    """Alive while each tells so; ready while one of them works."""
    pids = [1, 2]
    board = ProcessesProbe(lambda: pids, clock=time)
    try:
        assert board.live() == []
        assert board.ready() == ["no process has begun"]
        board.hear(1, [], [])
        board.hear(2, [], ["claims fail"])
        assert (board.live(), board.ready()) == ([], [])
        board.hear(2, ["the fetcher is stuck"], ["the fetcher is stuck"])
        assert board.live() == ["process 2: the fetcher is stuck"]
        pids[1] = 3  # started again
        board.hear(1, [], ["the database can't be used"])
        assert board.live() == []
        assert board.ready() == ["the database can't be used"]
        time.now += 61
        board.hear(1, [], [])
        assert board.live() == ["process 3 is silent"]
        board.stopping = True
        assert board.ready() == ["it is stopping"]
    finally:
        board.close()


def test_the_board_says_how_those_ended_that_are_not_there(time: Time) -> None:
    """Why none works, while none works; one that does is enough."""
    pids, troubles = [], ["a worker process ended with exit code 1"]
    board = ProcessesProbe(lambda: pids, troubles=lambda: troubles, clock=time)
    try:
        assert (board.live(), board.ready()) == ([], troubles)
        pids.append(7)
        assert board.ready() == troubles
        board.hear(7, [], [])
        assert board.ready() == []
    finally:
        board.close()


def test_a_process_tells_through_the_pipe(kernel: Kernel) -> None:
    """What it tells arrives, with its id."""
    import os

    board, ended = ProcessesProbe(lambda: [os.getpid()]), threading.Event()
    try:
        with working(kernel) as worker:
            arguments = (board.writer, WorkerProbe(kernel, worker), ended)
            thread = threading.Thread(target=keep_reporting, args=arguments, daemon=True)
            thread.start()
            until(lambda: board.ready() == [])
            ended.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    finally:
        board.close()
