"""A service that answers as a script says, and counts: models that obey `tool_choice` are no part of a test machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from automate_kernel import Kernel
from automate_llm import LlmProvider

SECRET = "s3cr3t-that-no-model-may-see-4711"

Reply = dict[str, Any] | tuple[int, dict[str, str], Any]
Script = Callable[[dict[str, Any]], Reply]


def says(text: str, **more: Any) -> dict[str, Any]:
    """An answer of text."""
    return {"role": "assistant", "content": text, **more}


def calls(*tools: tuple[str, dict[str, Any]], text: str | None = None) -> dict[str, Any]:
    """An answer that calls tools, after some text."""
    listed = [
        {
            "id": f"call_{name}_{number}", "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(tools)
    ]  # fmt: skip
    return {"role": "assistant", "content": text, "tool_calls": listed}


def answers_given(request: dict[str, Any]) -> int:
    """How many answers of the model a request has in its history."""
    return sum(each["role"] == "assistant" for each in request["messages"])


class ScriptedService:
    """An OpenAI-compatible service on 127.0.0.1, whose answers *script* makes of requests."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append(request)
                service.paths.append(self.path)
                service.headers.append(
                    {name.lower(): value for name, value in self.headers.items()}
                )
                reply = service.script(request)
                status, headers, body = reply if isinstance(reply, tuple) else (200, {}, reply)
                if status == 200 and isinstance(body, dict) and "role" in body:
                    body = completion(body)
                if status == 200 and request.get("stream") and isinstance(body, dict):
                    body, headers = streamed(body), {"Content-Type": "text/event-stream"}
                sent = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # A client that was killed is no news.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def model(self) -> OpenAIChatModel:
        return scripted_model(self.url)


def scripted_model(url: str) -> OpenAIChatModel:
    """The model behind *url*; errors are left to the kernel."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    # Its own would be closed as it is collected: by whichever loop runs then, with an error.
    http = DefaultAsyncHttpxClient()
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http)
    return OpenAIChatModel("scripted", provider=OpenAIProvider(openai_client=client))


def completion(message: dict[str, Any]) -> dict[str, Any]:
    ended = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": "chat-1", "object": "chat.completion", "created": 1_790_000_000, "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": ended}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    }  # fmt: skip


def streamed(body: dict[str, Any]) -> bytes:
    """A completion as a stream of events."""
    (choice,) = body["choices"]
    common = {key: body[key] for key in ("id", "created", "model")}
    common["object"] = "chat.completion.chunk"

    def chunk(delta: dict[str, Any], ended: str | None = None, **more: Any) -> bytes:
        part = {"index": 0, "delta": delta, "finish_reason": ended}
        return f"data: {json.dumps({**common, 'choices': [part], **more})}\n\n".encode()

    text = choice["message"].get("content") or ""
    parts = [
        chunk({"role": "assistant", "content": text[n : n + 5]}) for n in range(0, len(text), 5)
    ]
    for number, each in enumerate(choice["message"].get("tool_calls") or ()):
        parts.append(chunk({"tool_calls": [{"index": number, **each}]}))
    parts.append(chunk({}, choice["finish_reason"], usage=body["usage"]))
    return b"".join([*parts, b"data: [DONE]\n\n"])


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedService]:
    service = ScriptedService(script)
    try:
        yield service
    finally:
        service.close()


CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "large": {"type": "boolean"}},
    "required": ["name", "large"],
    "additionalProperties": False,
}


def kernel_for(url: str, most: int = 400_000, **service: Any) -> Kernel:
    given = {
        "model": "openai-chat:scripted", "base_url": url, "api_key": "$secret:API_KEY", **service
    }  # fmt: skip
    config = {"llm": {"services": {"main": given}, "max_input_bytes": most}}
    return Kernel(discover=False, plugins=[LlmProvider], secrets={"API_KEY": SECRET}, config=config)


def answering(*answers: Any) -> tuple[FunctionModel, list[Any]]:
    """A model that gives *answers* in order, and what it was asked."""
    asked: list[Any] = []

    def answer(messages: list[Any], info: AgentInfo) -> ModelResponse:
        asked.append((list(messages), info))
        given = answers[sum(isinstance(each, ModelResponse) for each in messages)]
        parts = [TextPart(given)] if isinstance(given, str) else [ToolCallPart(*c) for c in given]
        return ModelResponse(parts)

    return FunctionModel(answer), asked


def told(asked: list[Any]) -> list[str]:
    """What the tools told the model, in its last request."""
    return [str(part.content) for part in asked[-1][0][-1].parts]
