"""The text of an answer as the progress of its step, while it comes."""

from __future__ import annotations

import json

from pydantic_ai.models import StreamedResponse

from automate_kernel import current_call
from automate_llm.readable_text import readable

_MOST_BYTES = 3_500  # of JSON, of the 4,000 that progress may have


async def shown_text(stream: StreamedResponse) -> str:
    """Read *stream* to its end, report its text as progress, and return the text."""
    call, text = current_call(), ""
    async for event in stream:
        part = getattr(event, "part", None)
        if event.event_kind == "part_start" and getattr(part, "part_kind", "") == "text":
            text += getattr(part, "content", "")
        elif event.event_kind == "part_delta":
            text += getattr(event.delta, "content_delta", None) or ""
        else:
            continue
        if call is not None:
            # An answer that a crash has cut begins anew, in other words: who looks has to know.
            call.progress({"text": end_of(text), "characters": len(text), "attempt": call.attempt})
    return str(readable(text))


def end_of(text: str) -> str:
    """Return as much of the end of *text* as progress may have."""
    # Of a character only half may have come.
    shown: str = readable(text[-_MOST_BYTES:])
    while len(json.dumps(shown)) > _MOST_BYTES:
        shown = shown[len(shown) // 4 + 1 :]
    return shown
