"""The provider: chat, structured output and embeddings, on a scripted and on a real service."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import automate_llm
import pytest
from llm_support import CITY, SECRET, calls, completion, kernel_for, says, scripted, streamed

from automate_kernel import AutomateError, ConfigError, Kernel, ProviderContext
from automate_testing import ProviderContract
from automate_llm import LlmProvider
from automate_llm.http_client import _until


class TestLlmProvider(ProviderContract):
    @pytest.fixture
    def provider(self) -> LlmProvider:
        config = {"services": {"main": {"model": "openai-chat:m", "api_key": "k"}}}
        return LlmProvider(config, ctx=ProviderContext(key="llm"))


def test_chat_gives_text_tokens_and_cost():
    with scripted(lambda _: {**completion(says("Hello Ann")), "model": "gpt-4o"}) as service:
        kernel = kernel_for(service.url, max_tokens=100, temperature=0.5)
        output = kernel.invoke(
            "llm.chat",
            {
                "prompt": "Greet Ann", "instructions": "Be short", "max_tokens": 5_000,
                "history": [
                    {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}
                ],
            },
        )  # fmt: skip
    assert output["text"] == "Hello Ann" and output["finish_reason"] == "stop"
    assert (output["input_tokens"], output["output_tokens"]) == (20, 5)
    assert output["service"] == "main" and output["cost_usd"] > 0
    (request,) = service.requests
    roles = [each["role"] for each in request["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    # A call may ask for less than the service may give, never for more.
    assert request.get("max_completion_tokens", request.get("max_tokens")) == 100
    assert request["temperature"] == 0.5
    assert service.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(output) and SECRET not in repr(kernel.provider("llm").config)


def test_an_unknown_price_is_none():
    with scripted(lambda _: says("x")) as service:
        assert kernel_for(service.url).invoke("llm.chat", {"prompt": "x"})["cost_usd"] is None


def test_chat_shows_its_text_while_it_comes():
    with scripted(lambda _: says("word " * 100)) as service:
        kernel = kernel_for(service.url)
        kernel.add_workflow(
            {
                "name": "w", "trigger": {"type": "manual"},
                "steps": [{"id": "a", "action": "llm.chat", "input": {"prompt": "go"}}],
            }
        )  # fmt: skip
        execution = kernel.run("w")
    assert execution.status == "COMPLETED", execution.error
    progress = kernel.executions.get(execution.id).step("a").progress["value"]
    assert progress["characters"] == 500


def test_text_that_no_database_takes_is_made_readable():
    with scripted(lambda _: says("a\0b" + "x" * 20 + "\ud83d")) as service:
        kernel = kernel_for(service.url)
        given = {"id": "a", "action": "llm.chat", "input": {"prompt": "go"}}
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [given]})
        execution = kernel.run("w")
    assert execution.status == "COMPLETED", execution.error
    text = kernel.executions.get(execution.id).step("a").output["text"]
    assert text == "a\ufffdb" + "x" * 20 + "\ufffd"


def test_structured_output_is_asked_for_again_until_it_fits():
    answers = [
        {"name": "Paris"},
        {"name": "Paris", "large": "yes"},
        {"name": "Paris", "large": True},
    ]
    with scripted(lambda r: calls(("final_result", answers[len(service.requests) - 1]))) as service:
        kernel = kernel_for(service.url)
        output = kernel.invoke("llm.structured", {"prompt": "Paris?", "output_schema": CITY})
    assert output["output"] == {"name": "Paris", "large": True}
    assert (output["requests"], output["input_tokens"]) == (3, 60)


def test_structured_output_ends_after_its_retries():
    with scripted(lambda _: calls(("final_result", {"name": "Paris"}))) as service:
        kernel = kernel_for(service.url)
        given = {"prompt": "Paris?", "output_schema": CITY, "retries": 1}
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("llm.structured", given)
        assert len(service.requests) == 2
    assert caught.value.code == "FAILED_PRECONDITION" and not caught.value.retryable


def test_embeddings():
    def embed(request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        data = [
            {"object": "embedding", "index": n, "embedding": [float(len(text)), 1.0]}
            for n, text in enumerate(request["input"])
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return 200, {}, {"object": "list", "data": data, "model": "e", "usage": usage}

    with scripted(embed) as service:
        output = kernel_for(service.url).invoke("llm.embed", {"texts": ["a", "bcd"]})
    assert output["embeddings"] == [[1.0, 1.0], [3.0, 1.0]] and output["input_tokens"] == 7


@pytest.mark.parametrize(
    ("reply", "code", "retryable"),
    [
        ((401, {}, {"error": {"message": f"bad {SECRET}"}}), "UNAUTHENTICATED", False),
        ((403, {}, {"error": {"message": "no"}}), "PERMISSION_DENIED", False),
        ((429, {"Retry-After": "7"}, {"error": {"message": "slow"}}), "RESOURCE_EXHAUSTED", True),
        ((400, {}, {"error": {"code": "context_length_exceeded"}}), "INVALID_ARGUMENT", False),
        ((500, {}, {"error": {"message": "oops"}}), "INTERNAL", True),
        ((503, {}, b"<html>"), "UNAVAILABLE", True),
    ],
    ids=["401", "403", "429", "too-long", "500", "503"],
)
def test_errors_of_a_service(reply, code, retryable):
    with scripted(lambda _: reply) as service:
        with pytest.raises(AutomateError) as caught:
            kernel_for(service.url).invoke("llm.chat", {"prompt": "x"})
        assert len(service.requests) == 1  # the step tries again, not the library
    error = caught.value
    assert (error.code, error.retryable) == (code, retryable)
    assert error.retry_after == (7.0 if code == "RESOURCE_EXHAUSTED" else None)
    assert SECRET not in str(error)


def test_a_service_that_is_away():
    with scripted(lambda _: says("x")) as service:
        url = service.url
    with pytest.raises(AutomateError) as caught:
        kernel_for(url).invoke("llm.chat", {"prompt": "x"})
    assert caught.value.code == "UNAVAILABLE" and caught.value.retryable


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": "x", "service": "other"}, "the config has main"),
        ({"prompt": "x" * 5_000}, "5,000 bytes of text, and 1,000"),
    ],
    ids=["service", "size"],
)
def test_a_call_that_is_refused_before_it_costs(given, said):
    with scripted(lambda _: says("x")) as service:
        with pytest.raises(AutomateError, match=said):
            kernel_for(service.url, most=1_000).invoke("llm.chat", given)
        assert service.requests == []


def test_a_wrong_config_says_what_is_wrong():
    kernel = kernel_for("http://127.0.0.1:1", model="nobody:m")
    with pytest.raises(AutomateError, match="nobody:m"):
        kernel.invoke("llm.chat", {"prompt": "x"})
    with pytest.raises(AutomateError, match="default"):
        config = {"llm": {"services": {"a": {"model": "test:x"}}, "default": "b"}}
        Kernel(discover=False, plugins=[LlmProvider], config=config).provider("llm")


def test_a_misspelt_service_of_a_model_is_named():
    """It was the kind of an error alone."""
    config = {"llm": {"services": {"main": {"model": "openia:gpt-5.2"}}}}
    with Kernel(plugins=[LlmProvider], discover=False, config=config) as kernel:
        with pytest.raises(AutomateError, match="Unknown provider: openia"):
            kernel.invoke("llm.chat", {"prompt": "hello"})


def test_the_example_runs():
    def script(request: dict[str, Any]) -> dict[str, Any]:
        if request.get("tools"):
            return calls(("final_result", {"topic": "refund", "urgent": False}))
        return says("We will pay it back.")

    example = Path(automate_llm.__file__).parent / "example.yaml"
    with scripted(script) as service:
        kernel = kernel_for(service.url)
        kernel.add_workflow(example)
        kernel.emit("message.received", {"text": "My tea set came broken"})
        kernel.run_until_idle()
    (execution,) = kernel.executions.find(workflow="sort-message")
    execution = kernel.executions.get(execution.id)
    assert execution.output == {"topic": "refund", "text": "We will pay it back."}, execution.error


@pytest.mark.long
@pytest.mark.timeout(1_500)  # a busy machine takes minutes for 60 tokens
def test_a_real_small_model_chats_and_obeys_a_schema(small_model):
    kernel = kernel_for(
        small_model, max_tokens=60, temperature=0.0, structured="native", timeout_seconds=600,
    )  # fmt: skip
    chat = kernel.invoke("llm.chat", {"prompt": "What is the capital of France?"})
    assert chat["text"] and 1 < chat["output_tokens"] <= 60 and chat["input_tokens"] > 5
    given = {"prompt": "Describe Paris.", "output_schema": CITY, "retries": 3}
    output = kernel.invoke("llm.structured", given)
    assert set(output["output"]) == {"name", "large"}


@pytest.mark.parametrize(
    ("url", "options", "fits"),
    [
        ("http://models.example.com/v1", {}, False),
        ("http://10.0.0.7:8000/v1", {"api_key": "$secret:API_KEY"}, False),
        ("http://models.example.com/v1", {"allow_plain_http": True}, True),
        ("https://models.example.com/v1", {}, True),
        ("http://127.0.0.1:8000/v1", {}, True),
        ("http://[::1]:8000/v1", {}, True),
        ("http://localhost:8000/v1", {}, True),
        ("http://localhost.example.com/v1", {}, False),
    ],
)
def test_keys_and_prompts_are_sent_in_the_clear_to_this_machine_alone(
    url: str, options: dict, fits: bool
) -> None:
    service = {"model": "openai-chat:m", "base_url": url, **options}
    config = {"services": {"main": service}}
    if fits:
        LlmProvider.parse_config(config)
    else:
        with pytest.raises(ConfigError, match="https"):
            LlmProvider.parse_config(config)


@pytest.mark.parametrize("sort", ["none", "refusing", "ignoring"])
def test_a_service_whose_answers_nothing_bounds_is_refused(sort, monkeypatch):
    """Its library has a client of its own; whether it is refused is no question of its name."""

    class Without:
        def __init__(self, *, api_key: str, base_url: str) -> None:
            self.client = threading.Lock()

    class Refusing(Without):
        def __init__(self, *, http_client: Any = None, **given: Any) -> None:
            raise ValueError("`http_client` is ignored, please use another")

    class Ignoring(Without):
        def __init__(self, *, http_client: Any = None, **given: Any) -> None:
            super().__init__(**given)

    made = {"none": Without, "refusing": Refusing, "ignoring": Ignoring}[sort]
    monkeypatch.setattr("automate_llm.models.infer_provider_class", lambda name: made)
    with scripted(lambda _: says("hi")) as service:
        kernel = kernel_for(service.url)
        for operation, given in (("chat", {"prompt": "x"}), ("embed", {"texts": ["x"]})):
            with pytest.raises(ConfigError, match="a client of its own"):
                kernel.invoke(f"llm.{operation}", given)
        assert service.requests == []


def test_bedrock_is_refused(monkeypatch):
    """boto3 reads an answer of any size, for as long as a byte comes now and then."""
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    config = {"llm": {"services": {"main": {"model": "bedrock:amazon.nova-lite-v1:0"}}}}
    with (
        Kernel(discover=False, plugins=[LlmProvider], config=config) as kernel,
        pytest.raises(ConfigError, match="'bedrock' can't be used: its library has a client"),
    ):
        kernel.provider("llm").check()


def test_an_answer_that_breaks_off_is_told_as_that():
    """And not as a service that can't be reached; what had come of it stays for those who look."""
    parts = streamed(completion(says("Once upon a time"))).split(b"\n\n")[:2]
    begun = b"\n\n".join([*parts, b""])
    headers = {
        "Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", "Connection": "close"
    }  # fmt: skip
    with scripted(lambda _: (200, headers, b"%x\r\n%s\r\n" % (len(begun), begun))) as service:
        kernel = kernel_for(service.url)
        step = {"id": "s", "action": "llm.chat", "input": {"prompt": "x"}}
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
        execution = kernel.run("w")
    assert execution.error_code == "UNAVAILABLE"
    assert "broke off after 10 characters" in execution.error, execution.error
    assert execution.step("s").progress["value"]["text"] == "Once upon "


@pytest.mark.parametrize("turns", range(4))
def test_a_call_that_is_left_as_an_answer_comes_is_over(turns):
    """On Python before 3.12 it read on, to the end of the answer."""

    async def left() -> None:
        answer = asyncio.get_running_loop().create_future()

        async def ask() -> None:
            await answer

        async def read() -> None:
            await _until(asyncio.get_running_loop().time() + 60, ask())
            await asyncio.Event().wait()

        task = asyncio.create_task(read())
        for _ in range(9):
            await asyncio.sleep(0)
        answer.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(9):
            await asyncio.sleep(0)
        assert task.cancelled()

    asyncio.run(left())


@pytest.mark.parametrize(
    ("operation", "given"), [("chat", {"prompt": "hello"}), ("embed", {"texts": ["hello"]})]
)
def test_after_a_429_no_kernel_on_the_database_asks_the_service(
    tmp_path: Path, operation: str, given: dict[str, Any]
) -> None:
    """What it asks of a chat holds for all that is asked of that service, and of no other."""
    from automate_sqlalchemy import SqlAlchemyStorage

    storage = SqlAlchemyStorage(f"sqlite:///{tmp_path / 'app.db'}")
    storage.create_tables()
    with scripted(lambda _: (429, {"Retry-After": "60"}, {})) as service, ExitStack() as stack:
        url = service.url.removesuffix("/v1")
        services = {
            name: {"model": "openai-chat:m", "base_url": f"{url}/{name}", "api_key": "k"}
            for name in ("main", "other")
        }
        first, second = (
            stack.enter_context(
                Kernel(
                    storage, plugins=[LlmProvider], discover=False,
                    config={"llm": {"services": services}},
                )
            )
            for _ in range(2)
        )  # fmt: skip
        for kernel in (first, second, first):
            with pytest.raises(AutomateError) as refused:
                kernel.invoke(f"llm.{operation}", given)
            assert refused.value.code == "RESOURCE_EXHAUSTED" and refused.value.retryable
            assert 50 < (refused.value.retry_after or 0) <= 60
        service.script = lambda _: (503, {}, {})
        with pytest.raises(AutomateError, match="503"):
            second.invoke(f"llm.{operation}", {**given, "service": "other"})
    assert [path.split("/")[1] for path in service.paths] == ["main", "other"]
