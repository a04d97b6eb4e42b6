"""Recorded answers of models, for tests that ask no service."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from automate_kernel import AutomateError, ErrorCodes
from automate_kernel.secrets import Redactor
from automate_llm.model_answers import as_json, recorded, response_of

# They differ from run to run, and a model never sees them.
_UNSEEN = {"timestamp", "run_id", "conversation_id", "usage", "provider_details", "id"}


class CassetteModel(WrapperModel):
    """
    A model whose answers are kept in the file *path*, and given again from there.

    With *record* it asks *wrapped* for what is not in the file yet, and writes the answers, without
    secrets that *redactor* knows. Without it an unknown request is an error. A request is known by
    its messages, tools and settings, and their order; the same request twice has two answers.
    """

    def __init__(
        self,
        wrapped: Model,
        path: str | Path,
        *,
        record: bool = False,
        redactor: Redactor | None = None,
    ) -> None:
        super().__init__(wrapped)
        self._path = Path(path)
        self._record = record
        self._redactor = redactor or Redactor()
        self._tape: dict[str, list[Any]] = {}
        if self._path.exists():
            self._tape = json.loads(self._path.read_text())
        self._played: dict[str, int] = {}

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the recorded answer to *messages*, or record one."""
        key = self._key(messages, model_settings, model_request_parameters)
        answers, number = self._tape.setdefault(key, []), self._played.get(key, 0)
        self._played[key] = number + 1
        if number >= len(answers):
            if not self._record:
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    f"{self._path.name} has no answer to this request",
                    hint="record it: CassetteModel(model, path, record=True)",
                )
            answer = await self.wrapped.request(messages, model_settings, model_request_parameters)
            answers.append(self._redactor.redact_value(recorded(answer), cut=False))
            self._path.write_text(json.dumps(self._tape, indent=1, sort_keys=True) + "\n")
        return response_of(answers[number])

    def request_stream(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: answers are kept whole."""
        raise AutomateError(
            ErrorCodes.UNIMPLEMENTED,
            "a recorded answer has no stream",
            hint="leave stream=True out",
        )

    def _key(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> str:
        tools = [
            [each.name, each.description, each.parameters_json_schema]
            for each in (*parameters.function_tools, *parameters.output_tools)
        ]
        asked = {
            "model": self.wrapped.model_name,
            "messages": [_seen(each) for each in as_json(messages)],
            "tools": tools,
            "settings": {name: str(value) for name, value in (settings or {}).items()},
        }
        # Without secrets, so that another machine with others finds the answer too.
        cleaned = self._redactor.redact_value(asked, cut=False)
        text = json.dumps(cleaned, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _seen(part: Any) -> Any:
    """Return the parts of a message that a model sees."""
    if isinstance(part, dict):
        return {name: _seen(value) for name, value in part.items() if name not in _UNSEEN}
    return [_seen(each) for each in part] if isinstance(part, list) else part
