"""The text of an answer as the progress of its step, while it comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import AgentStreamEvent

from automate_kernel import current_call
from automate_kernel.storage.values import readable
from automate_llm.model_errors import broken_off

_MOST_BYTES = 3_500  # of JSON, of the 4,000 that progress may have


async def shown(events: AsyncIterable[AgentStreamEvent]) -> AsyncIterator[AgentStreamEvent]:
    """
    Give *events* on, and report their text as progress.

    Raises `AutomateError` if they end with an error of the service.
    """
    call, text = current_call(), ""
    try:
        async for event in events:
            added = _text_of(event)
            text += added
            if added and call is not None:
                # An answer that a crash has cut begins anew, in other words: who looks has to know.
                call.progress(
                    {"text": end_of(text), "characters": len(text), "attempt": call.attempt}
                )
            yield event
    except ModelAPIError as error:
        raise broken_off(error, len(text)) from error


async def shown_text(stream: AsyncIterable[AgentStreamEvent]) -> str:
    """Read *stream* to its end, report its text as progress, and return the text."""
    text = ""
    async for event in shown(stream):
        text += _text_of(event)
    return str(readable(text))


def _text_of(event: AgentStreamEvent) -> str:
    if event.event_kind == "part_start" and event.part.part_kind == "text":
        return event.part.content
    if event.event_kind == "part_delta" and event.delta.part_delta_kind == "text":
        return event.delta.content_delta
    return ""


def end_of(text: str) -> str:
    """Return as much of the end of *text* as progress may have."""
    # Only half of a character may have come.
    shown: str = readable(text[-_MOST_BYTES:])
    while len(json.dumps(shown)) > _MOST_BYTES:
        shown = shown[len(shown) // 4 + 1 :]
    return shown
