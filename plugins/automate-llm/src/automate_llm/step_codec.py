"""The records of steps of agents, as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_ai.durable_exec import JSON_CODEC, DurabilityCodec
from pydantic_ai.messages import ModelResponse

from automate_kernel import AutomateError, ErrorCodes
from automate_kernel.storage.values import readable
from automate_llm.model_answers import recorded


class StepCodec(DurabilityCodec):
    """The codec of Pydantic AI for JSON, with the tokens and the cost of an answer beside it."""

    def dump(self, tp: Any, value: Any) -> Any:
        """Return *value*, which is of the type *tp*, as the record of a step."""
        if (answer := _answer_in(value)) is not None:
            return recorded(answer)
        return readable(JSON_CODEC.dump(tp, value))

    def load(self, tp: Any, payload: Any) -> Any:
        """
        Return the value of the type *tp* that a record holds.

        Raises ``FAILED_PRECONDITION`` for one that has another form: of another release, say.
        """
        try:
            return self._loaded(tp, payload)
        except (ValidationError, KeyError, TypeError):
            # Not with its own text, which quotes what models and tools have said.
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "the record of an agent's step has a form that this release can't read",
                hint="run the release that made it, or resume the execution from that step",
                retryable=False,
            ) from None

    def _loaded(self, tp: Any, payload: Any) -> Any:
        if isinstance(payload, dict) and "response" in payload and "output_tokens" in payload:
            payload = payload["response"]
            if getattr(tp, "__name__", "") == "StreamedActivityResult":  # of 2.54, with its events
                payload = {"response": payload, "events": _events_of(payload["parts"])}
        return JSON_CODEC.load(tp, payload)


def _answer_in(value: Any) -> ModelResponse | None:
    if isinstance(value, ModelResponse):
        return value
    held = getattr(value, "response", None) if hasattr(value, "events") else None
    return held if isinstance(held, ModelResponse) else None


def _events_of(parts: list[Any]) -> list[dict[str, Any]]:
    """Return an event for each part, as later releases replay them."""
    return [
        {"event_kind": "part_start", "index": index, "part": part}
        for index, part in enumerate(parts)
    ]


def unwritable(error: Exception) -> AutomateError:
    """Return the *error* of a result that is not JSON, as an error that no other try mends."""
    said = str(error).splitlines()[0]
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the result of an agent's step can't be recorded: {said}",
        hint="return text, numbers, lists, dicts, dataclasses or pydantic models from a tool",
        retryable=False,
    )


STEP_CODEC = StepCodec()
