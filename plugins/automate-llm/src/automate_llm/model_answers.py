"""Answers of models as JSON: what a step records of them, with tokens and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse

from automate_kernel.storage.values import readable


def usage_of(response: ModelResponse) -> dict[str, Any]:
    """Return the ``model``, ``tokens`` and ``cost_usd`` of an answer, as a step records them."""
    usage = response.usage
    cost = cost_of(response)
    return {
        "model": response.model_name,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": None if cost is None else float(cost),
    }


def cost_of(response: ModelResponse) -> Decimal | None:
    """Return the price of an answer in US dollars, or None if the model's price is unknown."""
    if not response.model_name:
        return None
    try:
        return response.cost().total_price
    except (LookupError, ValueError, AssertionError):
        return None


def usage_of_all(responses: Sequence[ModelResponse]) -> dict[str, Any]:
    """Return the sums of tokens and cost of several answers, and how many there were."""
    costs = [cost_of(each) for each in responses]
    known = [each for each in costs if each is not None]
    return {
        "requests": len(responses),
        "input_tokens": sum(each.usage.input_tokens for each in responses),
        "output_tokens": sum(each.usage.output_tokens for each in responses),
        "cost_usd": float(sum(known)) if len(known) == len(costs) else None,
    }


def recorded(response: ModelResponse) -> dict[str, Any]:
    """Return an answer as the record of a step, with its text made readable."""
    # First as Python has it: half a character can't be dumped as JSON.
    plain = ModelMessagesTypeAdapter.dump_python([response])
    mended = readable(plain)
    messages: list[ModelMessage] = [response] if mended == plain else of_json(mended)
    (dumped,) = ModelMessagesTypeAdapter.dump_python(messages, mode="json")
    return {**usage_of(response), "response": dumped}


def response_of(record: Mapping[str, Any]) -> ModelResponse:
    """Return the answer that a record holds."""
    (response,) = ModelMessagesTypeAdapter.validate_python([record["response"]])
    if not isinstance(response, ModelResponse):
        raise TypeError("the record of a model's answer holds something else")
    return response


def as_json(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """Return messages as JSON."""
    dumped: list[dict[str, Any]] = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return dumped


def of_json(stored: Sequence[Any]) -> list[ModelMessage]:
    """Return the messages that JSON holds."""
    return ModelMessagesTypeAdapter.validate_python(list(stored))
