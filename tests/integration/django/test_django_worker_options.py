"""What a worker works on, and how it starts again when code changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm_forks import Forked
from waiting import Gate
from automate_django import get_kernel
from automate_django.management.commands import automate_worker
from automate_django.models import OutboxItem
from automate_django.tasks.versions import task_backends
from django.core.management import CommandError, call_command
from shop import tasks as test_tasks

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2] / "django_project"
Start = Callable[..., Forked]


@pytest.mark.parametrize(
    ("options", "done"),
    [
        (["--queue", "queue_1"], {"queue_1"}),
        (["--queue", "queue_1,default"], {"queue_1", "default"}),
        (["--kinds", "django.*", "--queue", "default"], {"queue_1", "default", "any"}),
        (["--kinds", "shop.order"], {"order"}),
    ],
)
def test_it_works_on_what_it_is_told(
    sqlite: str, start: Start, until: Callable[..., None], options: list[str], done: set[str]
) -> None:
    """By kind or by queue; the rest is for another worker. SIGTERM ends it with 0."""
    ids = {
        "default": test_tasks.noop_task.enqueue().id,
        "queue_1": test_tasks.noop_task.using(queue_name="queue_1").enqueue().id,
        "any": test_tasks.noop_task.using(backend="any", queue_name="x").enqueue().id,
        "order": get_kernel().outbox.enqueue("shop.order", {"number": "1"}),
    }
    worker = start("automate_worker", *options)
    wanted = {ids[name] for name in done}

    def completed() -> set[str]:
        found = OutboxItem.objects.filter(status="COMPLETED").values_list("pk", flat=True)
        return {str(pk) for pk in found}

    until(lambda: wanted <= completed(), worker)
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, output
    assert completed() == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--queue", "queue_2"], "no backend in TASKS has the queue 'queue_2'.*queue_1"),
        (["--kinds", "shop.ordr"], "no handler is there for items of kind 'shop.ordr'.*shop.order"),
        (["--reload", "--processes", "2"], "--reload goes with one process"),
        (["--reload", "--until-idle"], "--reload goes with one process"),
    ],
)
def test_what_cant_be_worked_on_is_told(sqlite: str, options: list[str], words: str) -> None:
    """With what there is instead; nothing is started."""
    from django.test import override_settings

    tasks = {"default": {"BACKEND": "automate_django.tasks.OutboxBackend", "QUEUES": ["queue_1"]}}
    with override_settings(TASKS=tasks), pytest.raises(CommandError, match=words):
        call_command("automate_worker", *options)


def test_it_starts_again_with_new_code(
    sqlite: str, start: Start, until: Callable[..., None], tmp_path: Path
) -> None:
    """What ran is handed back at once and runs with the new code; SIGTERM ends all of it with 0."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    begun = tmp_path / "begun"
    hanging = test_tasks.hang_once.enqueue(str(begun))
    worker = start("automate_worker", "--reload", cwd=project)
    until(lambda: begun.exists() and bool(begun.read_text()), worker)
    first = begun.read_text()

    code = project / "shop" / "tasks.py"
    code.write_text(
        code.read_text()
        .replace("    return 42", "    return 43")
        .replace("    if context.attempt == 1:", "    if False:")
    )

    def handed_back() -> bool:
        os.utime(code)  # the reloader may not have looked before the first change
        return str(stored(hanging.id).status) != "RUNNING"

    # Django's reloader looks at every file of every module once a second, or as fast as it can.
    until(handed_back, worker, 120)
    until(lambda: stored(hanging.id).is_finished, worker, 120)
    assert stored(hanging.id).return_value == 1  # handed back, it spent no attempt
    assert first not in stored(hanging.id).worker_ids[0]
    meaning = test_tasks.calculate_meaning_of_life.enqueue()
    until(lambda: stored(meaning.id).is_finished, worker)
    assert stored(meaning.id).return_value == 43

    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, output
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


def test_a_stop_that_comes_as_code_changes_is_not_lost(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the process with the new code, which is just being started."""
    stops: list[Callable[[], None]] = []
    begun: list[Child] = []

    class Child:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.ended = Gate()
            begun.append(self)
            if len(begun) == 2:
                threading.Thread(target=stops[0]).start()

        def terminate(self) -> None:
            self.ended.set()

        def wait(self) -> int:
            if self is begun[0]:
                return 3  # Django's reloader: there is new code
            self.ended.pass_()
            return -signal.SIGTERM

    @contextlib.contextmanager
    def handling(stop: Callable[[], None]) -> Iterator[None]:
        stops.append(stop)
        yield

    monkeypatch.delenv("RUN_MAIN", raising=False)
    monkeypatch.setattr(automate_worker, "handling_signals", handling)
    monkeypatch.setattr(automate_worker.subprocess, "Popen", Child)
    monkeypatch.setattr(sys, "argv", [__file__])  # the program that is begun anew
    with pytest.raises(SystemExit) as ended:
        call_command("automate_worker", "--reload")
    assert (ended.value.code, len(begun)) == (0, 2)


def test_what_runs_is_handed_back_when_reloading_ends(
    sqlite: str, start: Start, until: Callable[..., None], tmp_path: Path
) -> None:
    """The next start need not wait for the lease."""
    begun = tmp_path / "begun"
    hanging = test_tasks.hang_once.enqueue(str(begun))
    worker = start("automate_worker", "--reload")
    until(lambda: begun.exists() and bool(begun.read_text()), worker)
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, output
    assert OutboxItem.objects.get(pk=hanging.id).status == "PENDING"


@pytest.mark.parametrize("option", ["--kinds", "--queue"])
def test_a_list_of_nothing_is_not_all(sqlite: str, option: str) -> None:
    """Where the variable behind it is not set, the mails' worker would take everything."""
    get_kernel().outbox.enqueue("shop.order", {"number": "1"})
    for value in ("", " , "):
        with pytest.raises(CommandError, match=f"{option} names nothing"):
            call_command("automate_worker", option, value, "--until-idle")
    assert OutboxItem.objects.get().status == "PENDING"


def test_kinds_may_stand_apart(sqlite: str) -> None:
    """A blank after a comma is none of a kind's; to exclude nothing is no mistake."""
    get_kernel().outbox.enqueue("shop.order", {"number": "1"})
    kinds = "automate.event, shop.order"
    call_command("automate_worker", "--kinds", kinds, "--exclude-kinds", "", "--until-idle")
    assert OutboxItem.objects.get().status == "COMPLETED"


def stored(id: str) -> Any:
    return task_backends["default"].get_result(id)
