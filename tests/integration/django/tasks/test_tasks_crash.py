"""Workers that die in the middle of a task lose nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm_forks import Forked
from leases import lapse
from automate_django import get_kernel
from automate_django.models import OutboxItem
from automate_django.tasks import TaskLostError
from automate_django.tasks.versions import TaskResultStatus, task_backends, task_finished
from shop import tasks as test_tasks

pytestmark = pytest.mark.slow

Start = Callable[..., Forked]


def stored(id: str) -> Any:
    return task_backends["default"].get_result(id)


def test_a_worker_that_is_killed_in_mid_task(
    alias: str,
    start: Start,
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    """SIGKILL, and the task finishes on another worker; Django's task signals stay in order."""
    begun = tmp_path / "begun"
    result = test_tasks.hang_once.enqueue(str(begun))
    first = start("automate_worker")
    until(lambda: begun.exists() and bool(begun.read_text()), first)
    running = stored(result.id)
    assert (running.status, running.attempts) == (TaskResultStatus.RUNNING, 1)
    pid = int(begun.read_text())
    os.kill(pid, signal.SIGKILL)
    first.wait()
    assert stored(result.id).status == TaskResultStatus.RUNNING

    lapse(get_kernel(), pid)
    second = start("automate_worker")
    until(lambda: stored(result.id).is_finished, second)
    result.refresh()
    assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, 2)
    assert result.worker_ids[0] == "lost"
    assert str(second.pid) in result.worker_ids[1]
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output


def test_a_task_that_kills_its_worker(alias: str, start: Start) -> None:
    """With one attempt it ends FAILED, which is told once, by whoever finds it."""
    result = test_tasks.die.enqueue()
    worker = start("automate_worker")
    assert worker.wait(120) == 9
    told = []

    def hear(sender: Any, task_result: Any, **_: Any) -> None:
        told.append((task_result.id, str(task_result.status)))

    task_finished.connect(hear)
    try:
        lapse(get_kernel(), worker.pid)
        get_kernel().run_until_idle()
    finally:
        task_finished.disconnect(hear)
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is TaskLostError
    assert "did not finish in time, or died" in result.errors[0].traceback
    assert result.worker_ids == ["lost"]
    assert told == [(result.id, "FAILED")]
    assert OutboxItem.objects.get().attempt_count == 1
