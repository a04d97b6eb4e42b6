"""A service of language models that misbehaves in every way, as the kernel's suite has them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ClassVar

import httpx

# Imported here, or the time and memory of that would count for the first call.
import openai  # noqa: F401
import pydantic_ai.embeddings.openai
import pydantic_ai.models.openai  # noqa: F401
import pytest
from automate_kernel import AutomateError, Kernel
from automate_testing import HostileAnswersContract
from automate_testing.contracts.hostile_service import HostileService, hostile_service
from automate_llm import LlmProvider
from llm_support import scripted

_SECONDS = 3
_MOST_BYTES = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _prices() -> None:
    """Have the list of prices read before memory is traced, which makes that a hundred times slower."""
    genai_prices = pytest.importorskip("genai_prices")
    with suppress(LookupError):
        genai_prices.calc_price(genai_prices.Usage(), model_ref="none", provider_id="openai")


def config(url: str) -> dict[str, Any]:
    service = {
        "model": "openai-chat:some-model",
        "base_url": f"{url}/v1",
        "api_key": "$secret:API_KEY",
        "timeout_seconds": _SECONDS,
        "max_answer_bytes": _MOST_BYTES,
    }
    return {"services": {"main": service}}


class HostileModel(HostileAnswersContract):
    plugin = LlmProvider
    most_seconds = 20.0

    def config(self, url: str) -> dict[str, Any]:
        return config(url)


class TestEmbeddingsAgainstHostileAnswers(HostileModel):
    operation = "embed"
    example_input: ClassVar[Any] = {"texts": ["hello"]}
    answer: ClassVar[Any] = {
        "object": "list",
        "model": "some-model",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


class TestStructuredAgainstHostileAnswers(HostileModel):
    operation = "structured"
    example_input: ClassVar[Any] = {
        "prompt": "Describe Paris.",
        "output_schema": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
    _call: ClassVar[Any] = {
        "id": "t1",
        "type": "function",
        "function": {"name": "final_result", "arguments": '{"name": "Paris"}'},
    }
    answer: ClassVar[Any] = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "some-model",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": None, "tool_calls": [_call]},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


@pytest.fixture
def service() -> Iterator[HostileService]:
    with hostile_service(lambda *_: {}) as service:
        yield service


@pytest.mark.parametrize(
    ("manner", "code"), [("dripping", "DEADLINE_EXCEEDED"), ("huge", "FAILED_PRECONDITION")]
)
def test_an_answer_that_streams_is_bounded_too(
    service: HostileService, manner: str, code: str
) -> None:
    """Its text is taken as it comes, and neither its time nor its size is the service's choice."""
    service.manner = manner
    with (
        Kernel(
            plugins=[LlmProvider], discover=False, config={"llm": config(service.url)},
            secrets={"API_KEY": "canary"},
        ) as kernel,
        pytest.raises(AutomateError) as refused,
    ):  # fmt: skip
        tracemalloc.start(1)
        try:
            kernel.invoke("llm.chat", {"prompt": "hello"})
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert str(refused.value.code) == code
    assert "of the service" in (refused.value.hint or ""), "the hint names no option"
    assert peak < 32 * _MOST_BYTES


def test_one_provider_answers_on_any_event_loop() -> None:
    """Its connections belong to the loop that opened them, and a second loop opens its own."""
    answer = TestEmbeddingsAgainstHostileAnswers.answer
    with (
        scripted(lambda _: (200, {}, answer)) as service,
        Kernel(
            plugins=[LlmProvider], discover=False, secrets={"API_KEY": "canary"},
            config={"llm": config(service.url.removesuffix("/v1"))},
        ) as kernel,
    ):  # fmt: skip
        for _ in range(2):
            output = asyncio.run(kernel.ainvoke("llm.embed", {"texts": ["hello"]}))
            assert output["embeddings"] == [[0.5, 0.25]]
        assert kernel.invoke("llm.embed", {"texts": ["hello"]})["input_tokens"] == 1


def test_no_request_is_logged_by_the_client(caplog: pytest.LogCaptureFixture) -> None:
    """Its address may hold a secret, and it would stand there twice; others' lines stay."""
    answer = TestEmbeddingsAgainstHostileAnswers.answer
    with scripted(lambda _: (200, {}, answer)) as service:
        url = service.url.removesuffix("/v1").replace("://", "://$secret:USER@")
        with (
            Kernel(
                plugins=[LlmProvider], discover=False, config={"llm": config(url)},
                secrets={"API_KEY": "canary-of-a-key", "USER": "canary-of-a-user"},
            ) as kernel,
            caplog.at_level("DEBUG"),
        ):  # fmt: skip
            kernel.invoke("llm.embed", {"texts": ["hello"]})
    assert [each for each in caplog.records if each.name.startswith(("httpx", "httpcore"))] == []
    with scripted(lambda _: (200, {}, answer)) as service, caplog.at_level("INFO"):
        httpx.post(f"{service.url}/embeddings", json={})
    assert [each.name for each in caplog.records].count("httpx") == 1
