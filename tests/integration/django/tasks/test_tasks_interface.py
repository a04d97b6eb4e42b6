"""What Django's own ``tests/tasks`` ask of tasks and results, where the backend has a part in it."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import django
import pytest
from automate_django import emit, get_kernel
from automate_django.models import OutboxItem, WorkflowExecution
from automate_django.tasks.versions import (
    LOGGER,
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
)
from django.test import override_settings
from shop import tasks as test_tasks


def done(task: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a task that was run."""
    result = task.enqueue(*args, **kwargs)
    get_kernel().run_until_idle()
    result.refresh()
    return result


# -- results -------------------------------------------------------------------------------------


def test_refreshing_changes_nothing_that_is_the_same(alias: str) -> None:
    """Neither while it waits nor when it has ended; sync and async."""
    result = test_tasks.give_back.using(priority=7).enqueue({"a": 1})
    waiting = dataclasses.asdict(result)
    result.refresh()
    assert dataclasses.asdict(result) == waiting
    get_kernel().run_until_idle()
    result.refresh()
    ended = dataclasses.asdict(result)
    assert ended != waiting
    asyncio.run(result.arefresh())
    assert dataclasses.asdict(result) == ended


def test_a_result_that_is_missing_or_another_tasks(alias: str) -> None:
    """By the task itself, sync and async."""
    with pytest.raises(TaskResultDoesNotExist):
        test_tasks.noop_task.get_result("123")
    with pytest.raises(TaskResultDoesNotExist):
        asyncio.run(test_tasks.noop_task.aget_result("123"))
    other = test_tasks.noop_task_async.enqueue()
    with pytest.raises(Exception, match="Task does not match"):
        asyncio.run(test_tasks.noop_task.aget_result(other.id))


def test_arguments_come_back_as_json(alias: str) -> None:
    """What the task gets is what the result shows, whatever the task does to it."""
    result = test_tasks.spoil.enqueue((1, 2), options={"keys": ("a",)})
    assert (result.args, result.kwargs) == ([[1, 2]], {"options": {"keys": ["a"]}})
    get_kernel().run_until_idle()
    stored = test_tasks.spoil.get_result(result.id)
    assert stored.return_value == [[1, 2, 3], {"keys": ["a"], "more": True}]
    assert (stored.args, stored.kwargs) == (result.args, result.kwargs)


def test_an_argument_that_is_no_json_from_a_coroutine(sqlite: str) -> None:
    """Refused there too."""
    with pytest.raises(TypeError):
        asyncio.run(test_tasks.noop_task.aenqueue(datetime.now()))
    assert not OutboxItem.objects.exists()


def test_an_exception_that_nobody_can_import(alias: str) -> None:
    """The result is there all the same; only its class can't be had."""
    result = done(test_tasks.fails_with_its_own_exception)
    assert result.status == TaskResultStatus.FAILED
    (error,) = result.errors
    assert error.exception_class_path.endswith("<locals>.OwnError")
    assert "OwnError: of its own" in error.traceback
    with pytest.raises((ImportError, ValueError)):
        error.exception_class  # noqa: B018


@pytest.mark.skipif(django.VERSION < (6, 1), reason="tasks can be pickled from Django 6.1 on")
def test_tasks_and_results_can_be_pickled(sqlite: str) -> None:
    """Into a cache, for instance."""
    task = test_tasks.noop_task.using(priority=3, queue_name="queue_1")
    assert pickle.loads(pickle.dumps(task)) == task
    for result in (task.enqueue(1), done(test_tasks.failing_task_value_error)):
        assert pickle.loads(pickle.dumps(result)) == result


# -- tasks ---------------------------------------------------------------------------------------


def test_using_is_of_the_task_it_makes(alias: str) -> None:
    """The first stays as it was; what is chained adds up, and a result's task has all of it."""
    zone = timezone(timedelta(hours=-5))
    at = datetime.now(zone) + timedelta(days=3)
    later = test_tasks.noop_task.using(run_after=at)
    urgent = later.using(priority=10).using(queue_name="queue_1")
    assert (urgent.run_after, urgent.priority, urgent.queue_name) == (at, 10, "queue_1")
    assert (later.priority, test_tasks.noop_task.run_after) == (0, None)
    result = urgent.enqueue()
    stored = task_backends["default"].get_result(result.id)
    assert stored.task == urgent
    assert abs(OutboxItem.objects.get().next_attempt_at - at) < timedelta(milliseconds=1)


def test_a_time_without_a_zone_is_refused(sqlite: str) -> None:
    """It would be another instant on another machine."""
    with pytest.raises(InvalidTask, match="run_after must be an aware datetime"):
        test_tasks.noop_task.using(run_after=datetime.now())


def test_called_directly(sqlite: str) -> None:
    """A task is run at once and here, without the outbox."""
    assert test_tasks.calculate_meaning_of_life.call() == 42
    assert asyncio.run(test_tasks.calculate_meaning_of_life.acall()) == 42
    assert asyncio.run(test_tasks.noop_task_async.acall()) is None
    assert test_tasks.noop_task_async.call() is None
    assert not OutboxItem.objects.exists()


def test_a_coroutine_takes_the_context(alias: str) -> None:
    """As a plain function does."""
    result = done(test_tasks.get_task_id_async)
    assert result.return_value == result.id


def test_without_any_backend(sqlite: str) -> None:
    """Workflows run as before; a task says that it has nowhere to go."""
    with override_settings(TASKS={}):
        with pytest.raises(Exception, match="The connection 'default' doesn't exist"):
            test_tasks.noop_task.enqueue()
        emit("order.created", {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"})
        get_kernel().run_until_idle()
    assert WorkflowExecution.objects.get().status == "COMPLETED"


def test_the_log_of_a_failure(sqlite: str, caplog: pytest.LogCaptureFixture) -> None:
    """Three lines: enqueued, begun, failed; each with the id."""
    with caplog.at_level("DEBUG", LOGGER):
        result = done(test_tasks.failing_task_value_error)
    told = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(told) == 3
    for words, line in zip(("enqueued", "state=RUNNING", "state=FAILED"), told, strict=True):
        assert words in line
        assert result.id in line
