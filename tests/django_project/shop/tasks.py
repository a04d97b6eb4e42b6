"""The shop's tasks; most are those of Django's own tests."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import django
from automate_django import get_kernel
from automate_django.tasks import retry
from automate_kernel.base.errors import AutomateError, ErrorCodes

from .models import Message, Order

if django.VERSION >= (6, 0):
    from django.tasks import TaskContext, task
else:
    from django_tasks import TaskContext, task


@task()
def noop_task(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


@task
def noop_task_from_bare_decorator(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


@task()
async def noop_task_async(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


@task()
def calculate_meaning_of_life() -> int:
    """Take no time for it."""
    return 42


@task()
def give_back(value: Any) -> Any:
    """Return *value*."""
    return value


@task()
def spoil(values: list[int], options: dict[str, Any]) -> Any:
    """Change its arguments."""
    values.append(3)
    options["more"] = True
    return [values, options]


@task()
async def say_async(text: str) -> int:
    """Write with the asynchronous ORM."""
    return (await Message.objects.acreate(channel="async", text=text)).pk


@task()
def say(text: str) -> int:
    """Write with the ORM."""
    return Message.objects.create(channel="task", text=text).pk


@task()
def order_again(number: str) -> None:
    """Break a constraint, if there is such an order."""
    Order.objects.create(number=number, total=1)


@task()
def failing_task_value_error() -> None:
    """Fail."""
    raise ValueError("This Task failed due to ValueError")


@task()
def failing_task_system_exit() -> None:
    """Fail worse."""
    raise SystemExit("This Task failed due to SystemExit")


@task()
def failing_task_keyboard_interrupt() -> None:
    """Stop the program."""
    raise KeyboardInterrupt("This Task failed due to KeyboardInterrupt")


@task()
def fails_with_its_own_exception() -> None:
    """Fail with a class that has no place in a module."""

    class OwnError(Exception):
        pass

    raise OwnError("of its own")


@task()
def complex_exception() -> None:
    """Fail with an exception in an exception."""
    raise ValueError(ValueError("This task failed"))


@task()
def complex_return_value() -> Any:
    """Return what is neither JSON nor can be pickled."""
    return lambda: True


@task()
def not_a_number() -> float:
    """Return what is JSON to Python and to no database."""
    return float("nan")


GIVEN: list[Any] = []


@task()
@retry(max_attempts=4, base_seconds=0)
def given_with_retries() -> Any:
    """Return the first of `GIVEN`, and note that it was called."""
    GIVEN.append("called")
    return GIVEN[0]


@task(takes_context=True)
def get_task_id(context: TaskContext) -> str:
    """Say who it is."""
    return context.task_result.id


@task(takes_context=True)
async def get_task_id_async(context: TaskContext) -> str:
    """Say who it is."""
    return context.task_result.id


@task(takes_context=True)
def attempt_number(context: TaskContext) -> int:
    """Say how often it was begun."""
    return context.attempt


@task(takes_context=True)
@retry(max_attempts=3, base_seconds=0)
def third_time(context: TaskContext) -> int:
    """Work at the third attempt."""
    if context.attempt < 3:
        raise RuntimeError(f"not at attempt {context.attempt}")
    return context.attempt


@retry(max_attempts=2, base_seconds=0)
@task
def never_works() -> None:
    """Fail each time."""
    raise RuntimeError("never")


@task
@retry(max_attempts=5, base_seconds=0, give_up_on=LookupError)
def given_up() -> None:
    """Fail so that no attempt can help."""
    raise KeyError("no such order")


@task
@retry(max_attempts=5, base_seconds=0)
def refused() -> None:
    """Fail with an error that says that it is for good."""
    raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "never")


@task(backend="any", queue_name="whatever")
def retried_by_its_backend() -> None:
    """Fail each time, and have the backend say how often that is."""
    raise RuntimeError("never")


@task
def tells_its_secret() -> str:
    """Fail with a secret in the text."""
    token = str(get_kernel().secrets.get("CHAT_TOKEN"))
    raise RuntimeError(f"401 for {token}")


@task
def returns_its_secret() -> dict[str, str]:
    """Return a secret."""
    return {"token": str(get_kernel().secrets.get("CHAT_TOKEN"))}


@task(takes_context=True)
def hang_once(context: TaskContext, path: str) -> int:
    """At the first attempt, say so in the file *path* and wait to be killed."""
    if context.attempt == 1:
        Path(path).write_text(str(os.getpid()))
        time.sleep(300)
    return context.attempt


@task
@retry(max_attempts=1)
def die() -> None:
    """Take the worker's process along."""
    os._exit(9)


no_task = len
