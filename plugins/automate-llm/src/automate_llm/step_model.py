"""The model that a step asks: it sees no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import (
    Model,
    ModelRequestContext,
    ModelRequestParameters,
    StreamedResponse,
)
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from automate_kernel.secrets.redaction import Redactor
from automate_llm.model_answers import as_json, of_json


class StepModel(WrapperModel):
    """A model that is asked without the secrets that *redactor* knows."""

    def __init__(self, wrapped: Model, redactor: Redactor) -> None:
        super().__init__(wrapped)
        self._redactor = redactor

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the answer to *messages*."""
        return await self.wrapped.request(
            self._clean(messages), model_settings, self._clean_parameters(model_request_parameters)
        )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Give the answer to *messages* as it comes."""
        parameters = self._clean_parameters(model_request_parameters)
        sent = self._clean(messages)
        async with self.wrapped.request_stream(
            sent, model_settings, parameters, run_context
        ) as stream:
            yield stream

    async def compact_messages(
        self, request_context: ModelRequestContext, *, instructions: str | None = None
    ) -> ModelResponse:
        """Return a shorter form of the messages."""
        cleaned = replace(request_context, messages=self._clean(request_context.messages))
        cleaned.model = self.wrapped
        text = instructions and self._redactor.redact_value(instructions, cut=False)
        return await self.wrapped.compact_messages(cleaned, instructions=text)

    def _clean(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        dumped = as_json(messages)
        cleaned = self._redactor.redact_value(dumped, cut=False)
        # What has none is sent as it is: JSON may lose what a service has attached to its answer.
        return messages if cleaned == dumped else of_json(cleaned)

    def _clean_parameters(self, given: ModelRequestParameters) -> ModelRequestParameters:
        parts = given.instruction_parts or []
        texts = [each.content for each in parts]
        cleaned = self._redactor.redact_value(texts, cut=False)
        if cleaned == texts:
            return given
        kept = [replace(each, content=text) for each, text in zip(parts, cleaned, strict=True)]
        return replace(given, instruction_parts=kept)
