"""The provider ``llm``: chat, structured output and embeddings of several services."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from automate_kernel import (
    AutomateError,
    BaseProvider,
    ConfigError,
    ErrorCodes,
    ProviderContext,
    capability,
)
from automate_llm.config import (
    ChatInput,
    ChatOutput,
    EmbedInput,
    EmbedOutput,
    LlmConfig,
    LlmService,
    StructuredInput,
    StructuredOutput,
)

if TYPE_CHECKING:
    from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult
    from pydantic_ai.messages import BinaryContent, ModelMessage, UserContent
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings

    from automate_llm.budgets import Ledger
    from automate_llm.files import ChatFiles
    from automate_llm.http_client import HttpClients


class LlmProvider(BaseProvider):
    """
    Language models by the names of their services.

    A request is made once: the step that makes it is what is tried again.
    """

    key = "llm"
    display_name = "Language models"

    def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
        super().__init__(config, ctx=ctx)
        self._settings: LlmConfig = self.parse_config(config)
        self._lock = threading.Lock()
        self._models: dict[str, Model] = {}
        self._embedders: dict[str, EmbeddingModel] = {}

    @classmethod
    def config_schema(cls) -> type[LlmConfig]:
        """Return the model of the config: services by their names."""
        return LlmConfig

    def normalize_error(self, error: Exception) -> AutomateError:
        """Return *error* with the code that says whether to try again."""
        from automate_llm.model_errors import normal_error

        return normal_error(error)

    @capability(read_only=True, output_schema=ChatOutput)
    async def chat(self, given: ChatInput) -> ChatOutput:
        """Ask a language model, and return its text. The text is progress while it comes."""
        from pydantic_ai.direct import model_request_stream
        from pydantic_ai.exceptions import ContentFilterError
        from pydantic_ai.messages import ModelRequest, UserPromptPart

        from automate_llm.model_answers import usage_of
        from automate_llm.models import settings_of
        from automate_llm.streaming import shown_text

        name, service = self._service(given.service)
        self._check_size([given.prompt, given.instructions or "", *_contents(given)])
        settings = settings_of(service, max_tokens=given.max_tokens, temperature=given.temperature)
        model = self.model(name)
        history, prompt = await self._conversation(given)
        last = ModelRequest([UserPromptPart(prompt)], instructions=given.instructions)
        messages: list[ModelMessage] = [*history, last]
        with _about_files(messages):
            async with (
                model,
                model_request_stream(model, messages, model_settings=settings) as stream,
            ):
                text = await shown_text(stream)
        response = stream.get()
        reason = response.finish_reason
        if reason == "content_filter":
            raise ContentFilterError("the service refused the content")
        return ChatOutput(service=name, text=text, finish_reason=reason, **usage_of(response))

    @capability(read_only=True, output_schema=StructuredOutput)
    async def structured(self, given: StructuredInput) -> StructuredOutput:
        """Ask a language model for an object, checked against a JSON Schema."""
        from pydantic_ai import UsageLimits
        from pydantic_ai.messages import ModelRequest, ModelResponse, UserPromptPart

        from automate_kernel.storage.values import readable
        from automate_llm.model_answers import usage_of_all
        from automate_llm.models import settings_of
        from automate_llm.structured import structured_agent

        name, service = self._service(given.service)
        texts = [given.prompt, given.instructions or "", str(given.output_schema)]
        self._check_size([*texts, *_contents(given)])
        model = self.model(name)
        agent = structured_agent(
            model, given.output_schema, how=service.structured, retries=given.retries
        )
        settings = settings_of(service, max_tokens=given.max_tokens, temperature=given.temperature)
        history, prompt = await self._conversation(given)
        with _about_files([*history, ModelRequest([UserPromptPart(prompt)])]):
            async with model:
                result = await agent.run(
                    prompt,
                    instructions=given.instructions,
                    message_history=history,
                    model_settings=settings,
                    usage_limits=UsageLimits(request_limit=given.retries + 1),
                )
        answers = [each for each in result.new_messages() if isinstance(each, ModelResponse)]
        return StructuredOutput(
            service=name,
            model=answers[-1].model_name,
            output=readable(result.output),
            **usage_of_all(answers),
        )

    @capability(read_only=True, output_schema=EmbedOutput)
    async def embed(self, given: EmbedInput) -> EmbedOutput:
        """Turn texts into vectors."""
        name, service = self._service(given.service)
        self._check_size(given.texts)
        with self._lock:
            model = self._embedders.get(name)
            if model is None:
                from automate_llm.models import embedding_model_of

                model = self._embedders[name] = embedding_model_of(service, self._clients)
        result = await self._embedded(model, given)
        try:
            cost = float(result.cost().total_price)
        except (LookupError, ValueError, AssertionError):
            cost = None
        return EmbedOutput(
            service=name,
            model=result.model_name,
            embeddings=[list(each) for each in result.embeddings],
            input_tokens=result.usage.input_tokens,
            output_tokens=0,
            cost_usd=cost,
        )

    def model(self, service: str | None = None) -> Model:
        """Return the model of a service, for an agent of your own."""
        from automate_llm.models import model_of

        name, config = self._service(service)
        with self._lock:
            made = self._models.get(name)
            if made is None:
                plain = model_of(config, self._clients)
                made = self._models[name] = self._within_budgets(plain, config)
        return made

    async def _embedded(self, model: EmbeddingModel, given: EmbedInput) -> EmbeddingResult:
        if self._ledger is None:
            return await model.embed(given.texts, input_type=given.purpose)
        from automate_llm.budgets import Amount

        name, system = model.model_name, model.system
        size = sum(len(text.encode()) for text in given.texts)
        most = self._ledger.amount(name, system, input_tokens=size)
        async with self._ledger.spending(most) as noted:
            result = await model.embed(given.texts, input_type=given.purpose)
            if tokens := result.usage.input_tokens:
                spent = self._ledger.amount(name, system, input_tokens=tokens)
                noted.spent = Amount(tokens, spent.usd)
        return result

    def _within_budgets(self, model: Model, service: LlmService) -> Model:
        if self._ledger is None:
            return model
        from automate_llm.budgets import BudgetedModel

        return BudgetedModel(model, self._ledger, service.max_tokens)

    @cached_property
    def _ledger(self) -> Ledger | None:
        if self._settings.budgets is None:
            return None
        if self.ctx.budgets is None:
            raise ConfigError(
                "budgets are counted by a kernel, and this provider has none",
                hint="take it from the kernel: kernel.provider('llm')",
            )
        from automate_llm.budgets import Ledger

        return Ledger(self._settings.budgets, self.ctx.budgets, self.ctx.key)

    @cached_property
    def _clients(self) -> HttpClients:
        from automate_llm.http_client import HttpClients

        return HttpClients(self.ctx, self._settings.services)

    async def close(self) -> None:
        """Close the connections."""
        await self._files.aclose()
        await self._clients.aclose()

    def model_settings(self, service: str | None = None) -> ModelSettings:
        """Return the settings of requests to a service: its bounds."""
        from automate_llm.models import settings_of

        return settings_of(self._service(service)[1], max_tokens=None, temperature=None)

    def structured_by(self, service: str | None = None) -> Literal["tool", "native", "prompted"]:
        """Return how a service is asked for structured output."""
        return self._service(service)[1].structured

    def check(self) -> str:
        """Make each model, without asking any service."""
        for name in self._settings.services:
            self.model(name)
        return f"{len(self._settings.services)} service(s) are configured; none was asked"

    async def _conversation(
        self, given: ChatInput
    ) -> tuple[list[ModelMessage], str | Sequence[UserContent]]:
        """Return the messages before the prompt, and the prompt, with their files."""
        from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

        turns = given.history
        *found, last = await self._files.contents([*(turn.files for turn in turns), given.files])
        messages: list[ModelMessage] = [
            ModelRequest([UserPromptPart(_with(turn.content, files))])
            if turn.role == "user"
            else ModelResponse([TextPart(turn.content)])
            for turn, files in zip(turns, found, strict=True)
        ]
        return messages, _with(given.prompt, last)

    @cached_property
    def _files(self) -> ChatFiles:
        from automate_llm.files import ChatFiles

        return ChatFiles(self._settings, self.ctx.perform)

    def _service(self, name: str | None) -> tuple[str, LlmService]:
        services = self._settings.services
        name = name or self._settings.default or next(iter(services))
        if name not in services:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"there is no service {name!r}",
                hint=f"the config has {', '.join(services)}",
            )
        return name, services[name]

    def _check_size(self, texts: Iterable[str]) -> None:
        size, most = sum(len(text.encode()) for text in texts), self._settings.max_input_bytes
        if size > most:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"the request has {size:,} bytes of text, and {most:,} are allowed",
                hint="send less, or raise max_input_bytes in the config",
            )


def _contents(given: ChatInput) -> list[str]:
    return [turn.content for turn in given.history]


def _with(text: str, files: Sequence[BinaryContent]) -> str | list[UserContent]:
    return [text, *files] if files else text


@contextmanager
def _about_files(messages: Sequence[ModelMessage]) -> Iterator[None]:
    """Show that a service refused files, where it refuses a request that has some."""
    from automate_llm.model_errors import refused_files

    try:
        yield
    except Exception as error:
        refusal = refused_files(error, messages)
        if refusal is None:
            raise
        raise refusal from error
