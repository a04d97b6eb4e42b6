"""Methods that block, each made of its twin for ``async def``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

from typing_extensions import TypeVar

P = ParamSpec("P")
R = TypeVar("R", default=Any)


def blocking(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """
    Return the twin of *method*, with its signature, that blocks until the answer is there.

    The class has a method ``_run``, which waits for a coroutine.
    """

    @wraps(method)
    def blocked(*args: P.args, **kwargs: P.kwargs) -> R:
        client: Any = args[0]
        found: R = client._run(method(*args, **kwargs))  # noqa: SLF001 - part of the class
        return found

    blocked.__doc__ = f"Do the same as `{method.__name__}`, and block until the answer is there."
    blocked.__name__ = method.__name__.removeprefix("a")
    blocked.__qualname__ = method.__qualname__.removesuffix(method.__name__) + blocked.__name__
    return blocked
