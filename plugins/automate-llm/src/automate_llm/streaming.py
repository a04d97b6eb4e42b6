"""The text of an answer as the progress of its step, while it comes."""

from __future__ import annotations

import json

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.models import StreamedResponse

from automate_kernel import current_call
from automate_kernel.storage.values import readable
from automate_llm.model_errors import broken_off

_MOST_BYTES = 3_500  # of JSON, of the 4,000 that progress may have


async def shown_text(stream: StreamedResponse) -> str:
    """
    Read *stream* to its end, report its text as progress, and return the text.

    Raises `AutomateError` if it ends with an error of the service.
    """
    call, text = current_call(), ""
    try:
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
                call.progress(
                    {"text": end_of(text), "characters": len(text), "attempt": call.attempt}
                )
    except ModelAPIError as error:
        raise broken_off(error, len(text)) from error
    return str(readable(text))


def end_of(text: str) -> str:
    """Return as much of the end of *text* as progress may have."""
    # Of a character only half may have come.
    shown: str = readable(text[-_MOST_BYTES:])
    while len(json.dumps(shown)) > _MOST_BYTES:
        shown = shown[len(shown) // 4 + 1 :]
    return shown
