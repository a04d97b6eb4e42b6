"""The contract of Django's Tasks, as Django's own ``tests/tasks`` put it, for the outbox."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from automate_django import get_kernel
from automate_django.models import OutboxItem
from automate_django.models import TaskResult as Record
from automate_django.tasks import OutboxBackend, retry
from automate_django.tasks.retries import Retry, retry_of
from automate_django.tasks.versions import (
    LOGGER,
    InvalidTask,
    Task,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from automate_kernel.base.errors import PayloadError
from automate_testing.contracts.values import KEPT, each_case, nested, same
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.db import IntegrityError, connections, transaction
from django.test import override_settings
from django.utils import timezone
from shop import tasks as test_tasks
from shop.models import Message, Order

READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL
OUTBOX = "automate_django.tasks.OutboxBackend"


def work() -> Any:
    """Run what is due, as a worker does."""
    return get_kernel().run_until_idle()


def done(task: Task, *args: Any, **kwargs: Any) -> Any:
    """The result of a task that was run."""
    result = task.enqueue(*args, **kwargs)
    work()
    result.refresh()
    return result


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str]]]:
    """The signals that are sent, with the state at the time."""
    told: list[tuple[str, str]] = []
    signals = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    receivers = []
    for name, signal in signals.items():

        def receive(sender: Any, task_result: Any, name: str = name, **_: Any) -> None:
            assert sender is OutboxBackend
            told.append((name, str(task_result.status)))

        signal.connect(receive)
        receivers.append((signal, receive))
    yield told
    for signal, receive in receivers:
        signal.disconnect(receive)


# -- the backend ---------------------------------------------------------------------------------


def test_using_correct_backend(sqlite: str) -> None:
    """By its name in the settings, with everything supported."""
    backend = task_backends["default"]
    assert isinstance(backend, OutboxBackend)
    assert backend.alias == "default"
    assert backend.options == {}
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


@pytest.mark.parametrize("name", ["noop_task", "noop_task_async", "noop_task_from_bare_decorator"])
def test_enqueue_task(alias: str, name: str) -> None:
    """READY when it is enqueued, SUCCESSFUL when a worker has run it."""
    task = getattr(test_tasks, name)
    result = task.enqueue(1, two=3)
    assert result.status == READY
    assert not result.is_finished
    assert result.enqueued_at is not None
    assert result.started_at is result.last_attempted_at is result.finished_at is None
    with pytest.raises(ValueError, match="Task has not finished yet"):
        result.return_value  # noqa: B018
    assert result.task == task
    assert (result.args, result.kwargs, result.attempts) == ([1], {"two": 3}, 0)
    assert result.backend == "default"

    work()
    assert result.status == READY
    result.refresh()
    assert result.status == SUCCESSFUL
    assert result.is_finished
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert result.return_value is None
    assert (result.args, result.kwargs, result.attempts) == ([1], {"two": 3}, 1)
    assert len(result.worker_ids) == 1
    assert result.errors == []


def test_enqueue_task_async(alias: str) -> None:
    """From a coroutine, and its result to one."""

    async def enqueue() -> Any:
        results = [
            await test_tasks.noop_task.aenqueue(),
            await test_tasks.noop_task_async.aenqueue(),
        ]
        backend = task_backends["default"]
        results.append(await backend.aenqueue(test_tasks.calculate_meaning_of_life, [], {}))
        found = [await backend.aget_result(result.id) for result in results]
        assert found == results
        return results

    results = asyncio.run(enqueue())
    work()

    async def refresh() -> None:
        for result in results:
            await result.arefresh()

    asyncio.run(refresh())
    assert [result.status for result in results] == [SUCCESSFUL] * 3
    assert results[2].return_value == 42
    assert asyncio.run(test_tasks.noop_task.aget_result(results[0].id)) == results[0]


def test_get_result(alias: str) -> None:
    """The same as `enqueue` gave; by the task it must be that task's."""
    result = task_backends["default"].enqueue(test_tasks.noop_task, (), {})
    assert task_backends["default"].get_result(result.id) == result
    assert test_tasks.noop_task.get_result(result.id) == result
    with pytest.raises(Exception, match="Task does not match"):
        test_tasks.calculate_meaning_of_life.get_result(result.id)


@pytest.mark.parametrize("id", ["123", "", 123, None, "not-a-uuid", str(UUID(int=7))])
def test_get_missing_result(alias: str, id: Any) -> None:
    """An id that is none is as missing as one that nobody has; sync and async."""
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(id)
    with pytest.raises(TaskResultDoesNotExist):
        asyncio.run(task_backends["default"].aget_result(id))


def test_other_outbox_items_are_no_results(sqlite: str) -> None:
    """Nobody reads an event's payload through a task's result."""
    event = get_kernel().emit("order.created", {"secret": 1})
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(event)


def test_another_backends_result(alias: str) -> None:
    """Each backend knows its own tasks alone, as Django's own backends do."""
    result = test_tasks.noop_task.enqueue()
    assert task_backends["default"].get_result(result.id) == result
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["any"].get_result(result.id)


def test_result(alias: str) -> None:
    """What it returns comes back, as JSON knows it."""
    assert done(test_tasks.calculate_meaning_of_life).return_value == 42
    value = {"a": [1, 2.5, None, True, "ü"], "b": {"c": "d"}}
    assert done(test_tasks.give_back, value).return_value == value
    assert done(test_tasks.give_back, None).return_value is None


# An argument stands in a list in an object.
def test_arguments_and_results_keep_their_types(alias: str) -> None:
    """A number is what it was, whichever database the task and its result were in."""
    kept = {name: value for name, value in KEPT.items() if not name.startswith("the deepest")}

    def check(value: Any) -> None:
        assert same(done(test_tasks.give_back, value).return_value, value)

    each_case(kept, check)


def test_a_result_as_deep_as_it_may_be_is_kept_by_mariadb(mariadb: str) -> None:
    """Whose own JSON type refuses 32 levels."""
    value = nested(90)
    assert done(test_tasks.give_back, value).return_value == value


@pytest.mark.parametrize("value", [{1, 2}, {1: "a"}, float("nan"), 2**1100])
def test_a_task_is_not_called_again_for_its_result(alias: str, value: Any) -> None:
    """It has done its work: a value that can't be stored fails it, whatever its retries."""
    test_tasks.GIVEN[:] = [value]
    result = done(test_tasks.given_with_retries)
    assert test_tasks.GIVEN == [value, "called"]
    assert (result.status, result.attempts) == (FAILED, 1)


def test_a_result_that_the_database_refuses_fails_its_task(sqlite: str) -> None:
    """For good, and the item with it."""
    with connections[sqlite].cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER refuses BEFORE INSERT ON automate_task_result"
            " WHEN NEW.return_value LIKE '%refused%'"
            " BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: return_value'); END"
        )
        try:
            test_tasks.GIVEN[:] = ["refused"]
            result = done(test_tasks.given_with_retries)
        finally:
            cursor.execute("DROP TRIGGER refuses")
    assert test_tasks.GIVEN == ["refused", "called"]
    assert (result.status, result.attempts) == (FAILED, 1)
    assert OutboxItem.objects.get().status == "FAILED"


def test_a_task_uses_the_database(alias: str) -> None:
    """With the ORM, in a plain and in an asynchronous function."""
    assert done(test_tasks.say, "hello").return_value == Message.objects.get(text="hello").pk
    assert done(test_tasks.say_async, "hi").return_value == Message.objects.get(text="hi").pk


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "exception"),
    [("failing_task_value_error", ValueError), ("failing_task_system_exit", SystemExit)],
)
def test_catches_exception(
    alias: str, caplog: pytest.LogCaptureFixture, name: str, exception: type[BaseException]
) -> None:
    """FAILED at once, with its class and traceback, and logged by Django with the exception."""
    task = getattr(test_tasks, name)
    message = f"This Task failed due to {exception.__name__}"
    with caplog.at_level("ERROR", LOGGER):
        result = done(task)
    logged = [record for record in caplog.records if record.name == LOGGER]
    assert len(logged) == 1
    assert message in str(logged[0].exc_text)
    assert result.status == FAILED
    with pytest.raises(ValueError, match="Task failed"):
        result.return_value  # noqa: B018
    assert result.is_finished
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at is not None
    (error,) = result.errors
    assert error.exception_class is exception
    assert error.traceback.endswith(f"{exception.__name__}: {message}\n")
    assert name in error.traceback
    assert (result.task, result.args, result.kwargs) == (task, [], {})


def test_throws_keyboard_interrupt(sqlite: str) -> None:
    """Ctrl-C is meant for the program, where it comes in the main thread."""
    result = test_tasks.failing_task_keyboard_interrupt.enqueue()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert not task_backends["default"].get_result(result.id).is_finished


def test_complex_exception(alias: str) -> None:
    """Its text is text."""
    result = done(test_tasks.complex_exception)
    assert result.status == FAILED
    assert result._return_value is None
    assert result.errors[0].exception_class is ValueError
    assert 'ValueError(ValueError("This task failed"))' in result.errors[0].traceback


@pytest.mark.parametrize(
    ("name", "words"), [("complex_return_value", "Unsupported type"), ("not_a_number", "NaN")]
)
def test_complex_return_value(alias: str, name: str, words: str) -> None:
    """What can't be stored fails the task, properly."""
    result = done(getattr(test_tasks, name))
    assert result.status == FAILED
    assert result._return_value is None
    assert result.finished_at is not None
    assert words in result.errors[0].traceback


def test_a_secret_is_in_no_result(alias: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a traceback, nor in a value, nor in the log that Django writes."""
    failed, returned = done(test_tasks.tells_its_secret), done(test_tasks.returns_its_secret)
    assert failed.status == FAILED
    assert "401 for" in failed.errors[0].traceback
    assert list(returned.return_value) == ["token"]
    stored = [str(row) for row in Record.objects.values()] + [
        str(row) for row in OutboxItem.objects.values()
    ]
    formatter = logging.Formatter()
    logged = [formatter.format(record) for record in caplog.records]
    assert not [text for text in [*stored, *logged] if "tok-51d0" in text]


# -- validation ----------------------------------------------------------------------------------


def test_validate_on_enqueue(sqlite: str) -> None:
    """A queue that the backend doesn't have, when it was changed since."""
    task = test_tasks.noop_task.using(queue_name="queue_1")
    with override_settings(TASKS={"default": {"BACKEND": OUTBOX, "QUEUES": ["other"]}}):
        with pytest.raises(InvalidTask, match="Queue 'queue_1' is not valid for backend"):
            task.enqueue()
        with pytest.raises(InvalidTask, match="Queue 'queue_1' is not valid for backend"):
            asyncio.run(task.aenqueue())
    assert not OutboxItem.objects.exists()


def test_only_tasks_of_modules(sqlite: str) -> None:
    """A worker has to find it again."""
    from shop.tasks import task

    with pytest.raises(InvalidTask, match="module level"):
        task(lambda: True)


@pytest.mark.parametrize("priority", [-101, 101, 3.1])
def test_invalid_priority(sqlite: str, priority: Any) -> None:
    """As Django has it: whole numbers from -100 to 100."""
    with pytest.raises(InvalidTask, match="priority must be a whole number"):
        test_tasks.noop_task.using(priority=priority)


@pytest.mark.parametrize(
    ("value", "error"), [(object(), TypeError), (float("nan"), PayloadError), ("\0", PayloadError)]
)
def test_arguments_that_cant_be_stored(alias: str, value: Any, error: type[Exception]) -> None:
    """Refused where they are given, and the caller's transaction lives on."""
    with transaction.atomic(using=alias):
        Message.objects.create(channel="c", text="kept")
        with pytest.raises(error):
            test_tasks.noop_task.enqueue(value)
    assert Message.objects.get().text == "kept"
    assert not OutboxItem.objects.exists()


# -- transactions, priorities, times, queues -----------------------------------------------------


def test_exists_exactly_if_the_transaction_commits(alias: str) -> None:
    """Enqueued in the caller's transaction."""
    with transaction.atomic(using=alias):
        kept = test_tasks.noop_task.enqueue()
        assert task_backends["default"].get_result(kept.id).status == READY
    with pytest.raises(RuntimeError), transaction.atomic(using=alias):
        dropped = test_tasks.noop_task.enqueue()
        raise RuntimeError
    assert task_backends["default"].get_result(kept.id) == kept
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(dropped.id)


def test_priority_and_run_after(alias: str) -> None:
    """The urgent one first; one for later, later; both are told by the result."""
    low = test_tasks.say.using(priority=-100).enqueue("low")
    test_tasks.say.enqueue("middle")
    test_tasks.say.using(priority=100).enqueue("high")
    later_at = timezone.now() + timedelta(hours=300)
    later = test_tasks.say.using(run_after=later_at, priority=100).enqueue("later")
    work()
    assert list(Message.objects.order_by("pk").values_list("text", flat=True)) == [
        "high",
        "middle",
        "low",
    ]
    found = task_backends["default"].get_result(later.id)
    assert found == later
    assert (found.status, found.task.run_after) == (READY, later_at)
    assert task_backends["default"].get_result(low.id).task.priority == -100


def test_queues_are_kinds(alias: str) -> None:
    """So each can be paused; a backend that takes any queue has one kind for all."""
    first = test_tasks.noop_task.using(queue_name="queue_1").enqueue()
    second = test_tasks.noop_task.enqueue()
    third = test_tasks.noop_task.using(backend="any", queue_name="no matter").enqueue()
    assert set(OutboxItem.objects.values_list("kind", flat=True)) == {
        "django.task.default",
        "django.task.queue_1",
        "django.task",
    }
    get_kernel().outbox.pause("django.task.queue_1")
    work()
    for result in (first, second, third):
        result.refresh()
    assert [each.status for each in (first, second, third)] == [READY, SUCCESSFUL, SUCCESSFUL]
    assert task_backends["any"].get_result(third.id).task.queue_name == "no matter"
    get_kernel().outbox.resume("django.task.queue_1")
    work()
    first.refresh()
    assert first.status == SUCCESSFUL


# -- context and retries -------------------------------------------------------------------------


def test_takes_context(alias: str) -> None:
    """The first argument is Django's TaskContext."""
    result = done(test_tasks.get_task_id)
    assert result.return_value == result.id
    assert done(test_tasks.attempt_number).return_value == 1


def test_retries(alias: str, heard: list[tuple[str, str]]) -> None:
    """A task that waits for its next attempt is READY, with the errors so far."""
    result = test_tasks.third_time.enqueue()
    kernel = get_kernel()
    seen = []

    def look(sender: Any, task_result: Any, **_: Any) -> None:
        found = task_backends["default"].get_result(task_result.id)
        seen.append((str(found.status), found.attempts, len(found.errors)))

    task_started.connect(look)
    try:
        stats = kernel.run_until_idle()
    finally:
        task_started.disconnect(look)
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, 3, 3)
    assert [error.traceback.splitlines()[-1] for error in result.errors] == [
        "RuntimeError: not at attempt 1",
        "RuntimeError: not at attempt 2",
    ]
    assert seen == [("RUNNING", 1, 0), ("RUNNING", 2, 1), ("RUNNING", 3, 2)]
    assert (stats.completed, stats.retried, stats.failed) == (1, 2, 0)
    started = [("started", "RUNNING")] * 3
    assert heard == [("enqueued", "READY"), *started, ("finished", "SUCCESSFUL")]
    assert result.started_at < result.last_attempted_at


@pytest.mark.parametrize(
    ("name", "attempts"),
    [("never_works", 2), ("given_up", 1), ("refused", 1), ("retried_by_its_backend", 3)],
)
def test_how_often(alias: str, heard: list[tuple[str, str]], name: str, attempts: int) -> None:
    """By ``@retry`` above or below ``@task``, by the error, by the backend's OPTIONS."""
    result = done(getattr(test_tasks, name))
    assert (result.status, result.attempts) == (FAILED, attempts)
    assert len(result.errors) == attempts
    assert [told for told in heard if told[0] == "finished"] == [("finished", "FAILED")]


def test_while_it_waits(alias: str) -> None:
    """RETRY is READY, and not finished."""
    backend = {"BACKEND": OUTBOX, "OPTIONS": {"RETRY_ERRORS": True, "BASE_SECONDS": 3600}}
    with override_settings(TASKS={"default": backend}):
        result = test_tasks.failing_task_value_error.enqueue()
        work()
        result.refresh()
    assert result.status == READY
    assert not result.is_finished
    assert (result.attempts, len(result.errors)) == (1, 1)
    assert result.finished_at is None
    assert OutboxItem.objects.get().status == "RETRY"


def test_requeued_by_an_operator(alias: str) -> None:
    """It runs again, and what was is still told."""
    result = done(test_tasks.failing_task_value_error)
    assert get_kernel().outbox.requeue([result.id]) == 1
    result.refresh()
    assert (result.status, result.attempts) == (READY, 1)
    work()
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (FAILED, 2, 2)


def test_cancelled_by_an_operator(alias: str) -> None:
    """FAILED, with an error that says why."""
    result = test_tasks.noop_task.enqueue()
    assert get_kernel().outbox.cancel([result.id]) == 1
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 0)
    assert result.errors[0].exception_class.__name__ == "TaskCancelledError"
    assert result.is_finished


@pytest.mark.parametrize(
    "options", [{"MAX_ATTEMPTS": 0}, {"MAX_ATTEMPTS": "3"}, {"BASE_SECONDS": -1}]
)
def test_wrong_options(sqlite: str, options: dict[str, Any]) -> None:
    """Told by Django's check, and by the first task."""
    with override_settings(TASKS={"default": {"BACKEND": OUTBOX, "OPTIONS": options}}):
        (message,) = task_backends["default"].check()
        assert message.id == "automate.E032"
        with pytest.raises(ImproperlyConfigured):
            test_tasks.noop_task.enqueue()
    with pytest.raises(ImproperlyConfigured):
        retry(max_attempts=0)


def test_check(sqlite: str) -> None:
    """Nothing to say of what is right; a misspelt option and a long name are told."""
    assert task_backends["default"].check() == []
    backend = {"BACKEND": OUTBOX, "OPTIONS": {"MAX_ATTEMPT": 3}, "QUEUES": ["x" * 200]}
    with override_settings(TASKS={"default": backend}):
        found = task_backends["default"].check()
    assert [message.id for message in found] == ["automate.E031", "automate.E033"]
    assert "MAX_ATTEMPTS" in str(found[0].hint)


# -- signals -------------------------------------------------------------------------------------


def test_signals_are_sent_once(alias: str, heard: list[tuple[str, str]]) -> None:
    """Each in its time, for success and for failure."""
    done(test_tasks.noop_task)
    assert heard == [("enqueued", "READY"), ("started", "RUNNING"), ("finished", "SUCCESSFUL")]
    heard.clear()
    done(test_tasks.failing_task_value_error)
    assert heard == [("enqueued", "READY"), ("started", "RUNNING"), ("finished", "FAILED")]


def test_finished_is_true_when_it_is_sent(alias: str) -> None:
    """What a receiver reads is what it was told, and it may ask for the exception."""
    found = []

    def look(sender: Any, task_result: Any, **_: Any) -> None:
        stored = task_backends["default"].get_result(task_result.id)
        found.append((stored == task_result, stored.status, sys.exc_info()[0]))

    task_finished.connect(look)
    try:
        done(test_tasks.calculate_meaning_of_life)
        done(test_tasks.failing_task_value_error)
    finally:
        task_finished.disconnect(look)
    assert found == [(True, SUCCESSFUL, None), (True, FAILED, ValueError)]


def test_a_receiver_that_raises_harms_nobody(sqlite: str) -> None:
    """Neither the task, nor the other receivers."""

    def bad(**_: Any) -> None:
        raise RuntimeError("bad receiver")

    task_started.connect(bad)
    task_finished.connect(bad)
    try:
        assert done(test_tasks.calculate_meaning_of_life).return_value == 42
    finally:
        task_started.disconnect(bad)
        task_finished.disconnect(bad)


def test_logs(sqlite: str, caplog: pytest.LogCaptureFixture) -> None:
    """Django's own three lines."""
    with caplog.at_level("DEBUG", LOGGER):
        result = done(test_tasks.noop_task)
    told = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(told) == 3
    for words, line in zip(("enqueued", "state=RUNNING", "state=SUCCESSFUL"), told, strict=True):
        assert words in line
        assert result.id in line
        assert "None" not in line


# -- what may go wrong ---------------------------------------------------------------------------


def enqueue_raw(path: str, **options: Any) -> str:
    """An item as an older or newer program may have enqueued it."""
    payload = {
        "task": path,
        "args": [],
        "kwargs": {},
        "backend": "default",
        "queue_name": "default",
        "run_after": None,
        "enqueued_at": None,
    }
    return get_kernel().outbox.enqueue("django.task.default", payload, **options)


@pytest.mark.parametrize("path", ["shop.tasks.no_task", "os.system", "shop.tasks.gone"])
def test_only_a_task_is_called(alias: str, path: str) -> None:
    """What a path leads to must be a task: tried again for a while, then given up."""
    id = enqueue_raw(path, max_attempts=1)
    assert work().failed == 1
    item = OutboxItem.objects.get(id=id)
    assert item.status == "FAILED"
    assert Record.objects.get(id=id).errors
    with pytest.raises((ImportError, SuspiciousOperation)):
        task_backends["default"].get_result(id)


def test_a_task_that_is_not_there_yet_waits(sqlite: str) -> None:
    """In a deployment an old worker may meet a new task."""
    id = enqueue_raw("shop.tasks.of_tomorrow")
    work()
    assert OutboxItem.objects.get(id=id).status == "RETRY"


def test_inside_a_test_case(alias: str) -> None:
    """Tasks run in a block that is rolled back, one with a database error too; nothing stays."""
    Order.objects.create(number="1", total=1)
    with transaction.atomic(using=alias):
        good, bad = test_tasks.say.enqueue("hello"), test_tasks.order_again.enqueue("1")
        work()
        good.refresh()
        bad.refresh()
        assert (good.status, bad.status) == (SUCCESSFUL, FAILED)
        assert bad.errors[0].exception_class is IntegrityError
        assert Message.objects.get().text == "hello"
        transaction.set_rollback(True, using=alias)
    assert not OutboxItem.objects.exists()
    assert not Record.objects.exists()
    assert not Message.objects.exists()


def test_results_go_with_their_items(alias: str) -> None:
    """Purging leaves no result behind, and takes none of a task that waits."""
    finished, waiting = done(test_tasks.calculate_meaning_of_life), None
    backend = {"BACKEND": OUTBOX, "OPTIONS": {"RETRY_ERRORS": True, "BASE_SECONDS": 3600}}
    with override_settings(TASKS={"default": backend}):
        waiting = test_tasks.failing_task_value_error.enqueue()
        work()
    assert Record.objects.count() == 2
    get_kernel().purge(older_than_seconds=3600)
    assert Record.objects.count() == 2
    get_kernel().purge(older_than_seconds=0)
    assert [str(pk) for pk in Record.objects.values_list("pk", flat=True)] == [waiting.id]
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(finished.id)


def test_workers_sweep_results_too(alias: str) -> None:
    """What ``RETENTION_SECONDS`` says of items holds for the results of tasks."""
    with override_settings(AUTOMATE_OUTBOX={"RETENTION_SECONDS": 3600}):
        kept = done(test_tasks.calculate_meaning_of_life)
        old = done(test_tasks.calculate_meaning_of_life)
        failed = done(test_tasks.failing_task_value_error)
        long_ago = timezone.now() - timedelta(hours=2)
        OutboxItem.objects.filter(pk__in=[old.id, failed.id]).update(completed_at=long_ago)
        Record.objects.filter(pk__in=[old.id, failed.id]).update(updated_at=long_ago)
        get_kernel().sweep()
    assert {str(pk) for pk in Record.objects.values_list("pk", flat=True)} == {kept.id, failed.id}


def test_importing_it_is_cheap() -> None:
    """`@task` makes the backend before models are there; Celery imports every ``tasks``."""
    code = (
        "import sys, automate_django.tasks; from django.conf import settings;"
        "settings.configure(TASKS={'default': {'BACKEND': 'automate_django.tasks.OutboxBackend'}});"
        "from automate_django.tasks import OutboxBackend; OutboxBackend('default', {});"
        "bad = {'automate_kernel.kernel', 'automate_django.models'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    source = str(Path(__file__).parents[4] / "src")
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": source, "PATH": ""},
    )  # fmt: skip
    assert ran.stdout.strip() == "[]"


def test_retry_without_parentheses() -> None:
    """It has the usual values, and the function stays what it was."""

    @retry
    def charge() -> None: ...

    assert callable(charge)
    assert retry_of(charge, Retry()).errors
