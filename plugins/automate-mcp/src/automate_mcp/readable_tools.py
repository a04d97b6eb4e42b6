"""
The tools of a list that can be read, where one that is malformed would hide all others.

The SDK takes a whole list or none of it. So the messages are looked at before it gets them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse, ListToolsResult
from mcp.types.methods import validate_server_result
from pydantic import ValidationError
from typing_extensions import Self

LEFT_OUT = "automate/left-out"
"""The key of what was left out, with the reasons, in the ``_meta`` of a list."""
# A tool can do without them, and is worth more than a wrong icon.
_DECORATION = ("title", "description", "icons", "annotations", "execution", "_meta")
# That of the SDK, for a session that has not agreed on one.
_VERSION = "2025-11-25"
_MOST_NAME, _MOST_PLACES = 100, 3


@asynccontextmanager
async def with_readable_lists(
    transport: AbstractAsyncContextManager[Any], version: Callable[[], str | None]
) -> AsyncIterator[Any]:
    """Yield the streams of *transport*; lists of tools come without those that can't be read."""
    async with transport as (incoming, outgoing):
        yield _ReadableLists(incoming, version), outgoing


def readable_list(result: dict[str, Any], version: str | None) -> dict[str, Any]:
    """
    Return the *result* of ``tools/list`` without the tools that can't be read.

    Its ``_meta`` names them, with what is wrong. A result that has other faults stays as it is.
    """
    version = version or _VERSION
    meta = result.get("_meta")
    meta = {k: v for k, v in meta.items() if k != LEFT_OUT} if isinstance(meta, dict) else {}
    if _fault(result, version) is None and LEFT_OUT not in (result.get("_meta") or {}):
        return result
    if _fault({**result, "_meta": meta, "tools": []}, version) is not None:
        return result
    kept: list[Any] = []
    left_out: list[list[str]] = []
    for number, tool in enumerate(result["tools"], 1):
        usable, fault = _usable(tool, version)
        if fault is None:
            kept.append(usable)
        else:
            name = tool.get("name") if isinstance(tool, Mapping) else None
            named = name if isinstance(name, str) else f"number {number} of the list"
            left_out.append([named[:_MOST_NAME], fault])
    return {**result, "tools": kept, "_meta": {**meta, LEFT_OUT: left_out}}


def left_out_of(page: ListToolsResult) -> list[tuple[str, str]]:
    """Return the tools that *page* is without, each with what is wrong."""
    told: Any = (page.meta or {}).get(LEFT_OUT, [])
    return [(name, fault) for name, fault in told]


def _usable(tool: Any, version: str) -> tuple[Any, str | None]:
    """Return *tool* without what is wrong and not needed, and what is wrong of the rest."""
    if _tool_fault(tool, version) is None or not isinstance(tool, Mapping):
        return tool, _tool_fault(tool, version)
    usable = {name: value for name, value in tool.items() if name not in _DECORATION}
    fault = _tool_fault(usable, version)
    if fault is None:
        for name in _DECORATION:
            if name in tool and _tool_fault({**usable, name: tool[name]}, version) is None:
                usable[name] = tool[name]
    return usable, fault


def _tool_fault(tool: Any, version: str) -> str | None:
    # Those of the later versions want more of a list.
    return _fault({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [tool]},
                  version)  # fmt: skip


def _fault(result: Mapping[str, Any], version: str) -> str | None:
    """Return the places of a result that can't be read, and None if all of it can."""
    try:
        validate_server_result("tools/list", version, result)
        ListToolsResult.model_validate(result, by_name=False)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        told = [f"{_place(each['loc'])}: {each['msg']}" for each in problems[:_MOST_PLACES]]
        return "; ".join(dict.fromkeys(told))
    except (RecursionError, ValueError):
        return "it is nested too deep"
    return None


def _place(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place[2:] if place[:1] == ("tools",) else place)) or "it"


class _ReadableLists:
    """The stream of a server's messages, whose lists of tools are `readable_list`."""

    def __init__(self, inner: Any, version: Callable[[], str | None]) -> None:
        self._inner = inner
        self._version = version

    @property
    def last_context(self) -> Any:
        """The context in which the last message was sent, where the transport knows it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return self._read(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _ReadableLists:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._read(await self._inner.__anext__())

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        ended: bool | None = await self._inner.__aexit__(kind, error, trace)
        return ended

    def _read(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if not isinstance(item, SessionMessage):
            return item
        message = item.message
        if not isinstance(message, JSONRPCResponse) or not isinstance(
            message.result.get("tools"), list
        ):
            return item
        result = readable_list(message.result, self._version())
        return replace(item, message=message.model_copy(update={"result": result}))
