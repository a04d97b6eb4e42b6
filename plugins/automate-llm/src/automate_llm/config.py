"""The config of `LlmProvider`: services by their names, and bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from automate_kernel.base.hosts import check_encrypted

_MOST_FILES = 100
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class LlmService(BaseModel):
    """One model of one service."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str = Field(pattern=r"^(test|[a-z0-9/_-]+:.+)$", examples=["openai:gpt-5.2"])
    """The model as Pydantic AI names it: ``anthropic:…``, ``google:…``, ``openai:…``; a server that
    is compatible with OpenAI's is ``openai-chat:…`` with a `base_url`, and ``test`` is no model."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """The address of the service, if it isn't the usual one; https, but for this machine's own."""
    allow_plain_http: bool = False
    """Send requests over plain http to another machine, where all between can read them: for a
    network of your own."""
    api_key: SecretStr | None = None
    """The key; better as ``$secret:KEY``. By default that of the service's environment variable."""
    max_tokens: int = Field(default=1_024, ge=1, le=1_000_000)
    """The most tokens of an answer. A call may ask for fewer."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """The freedom of its answers; by default as the service has it."""
    timeout_seconds: _Seconds = 120.0
    """Seconds for a request, until the end of its answer."""
    max_answer_bytes: int = Field(default=16 << 20, ge=1_000, le=1 << 30)
    """The most bytes of an answer."""
    structured: Literal["tool", "native", "prompted"] = "tool"
    """The way to ask for structured output: a tool, the service's own JSON Schema, or words."""

    @model_validator(mode="after")
    def _encrypted(self) -> LlmService:
        check_encrypted(
            self.base_url or "", allow_plain_http=self.allow_plain_http, what="base_url"
        )
        return self


class LlmBudget(BaseModel):
    """The most that may be spent. Give tokens, or US dollars, or both."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    tokens: int | None = Field(default=None, ge=1)
    """Tokens, of requests and answers together."""
    usd: float | None = Field(default=None, gt=0)
    """US dollars. A model whose price is unknown is refused."""


class LlmBudgets(BaseModel):
    """The budgets of a provider, which all workers count together in the application's database."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    execution: LlmBudget | None = None
    """For one execution and its sub-workflows."""
    tenant_day: LlmBudget | None = None
    """For one tenant and one day in UTC; calls without a tenant have one together."""


class LlmConfig(BaseModel):
    """Services by their names, and which of them is used where a call names none."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    services: dict[str, LlmService] = Field(min_length=1, examples=[{"main": {"model": "test"}}])
    """The services, by names of your own."""
    default: str | None = Field(default=None, examples=["main"])
    """The service of calls that name none; by default the only one, or the first."""
    budgets: LlmBudgets | None = Field(
        default=None, examples=[{"tenant_day": {"tokens": 2_000_000}}]
    )
    """Budgets, which refuse a request before they are passed."""
    max_input_bytes: int = Field(default=400_000, ge=1_000, le=1 << 30)
    """The most bytes of text in a request."""
    max_file_bytes: int = Field(default=5_000_000, ge=1_000, le=64 << 20)
    """The most bytes of an image or document."""
    max_files_bytes: int = Field(default=20_000_000, ge=1_000, le=256 << 20)
    """The most bytes of all images and documents of a request."""
    files_from: list[str] = Field(default=[], examples=[["files.read", "s3.get_object"]])
    """The operations that read files which a call only refers to; none by default, as whoever may
    call the provider could have any of them sent."""
    allow_private_networks: bool | list[str] = False
    """Addresses for files that are not public, as ``automate-http`` has it."""

    @model_validator(mode="after")
    def _fits(self) -> LlmConfig:
        if self.default is not None and self.default not in self.services:
            raise ValueError(f"default names {self.default!r}, which is no service")
        return self


class _LlmRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    service: str | None = Field(default=None, description="The service's name in the config.")


class ChatFile(BaseModel):
    """
    An image (PNG, JPEG, GIF, WebP) or a PDF: its bytes, its address, or a file of a plugin.

    What ``files`` and ``s3`` answer about a file fits as it is; fields that aren't needed are left.
    """

    model_config = ConfigDict(extra="ignore")

    base64: str | None = Field(default=None, description="Its bytes in Base64.")
    url: str | None = Field(default=None, description="Its address, from which it is fetched.")
    place: str | None = Field(default=None, description="The place of the plugin `files`.")
    path: str | None = Field(default=None, description="Its path in that place.")
    bucket: str | None = Field(default=None, description="The bucket of the plugin `s3`.")
    key: str | None = Field(default=None, description="The key of the object in that bucket.")
    version_id: str | None = Field(default=None, description="The version of that object.")

    @model_validator(mode="after")
    def _is_somewhere(self) -> ChatFile:
        whole = self.base64 is not None or self.place is None or self.path is not None
        if not whole or (self.base64, self.url, self.place, self.key) == (None,) * 4:
            raise ValueError("give base64, or url, or place and path, or bucket and key")
        return self


class ChatTurn(BaseModel):
    """One message before the prompt."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str
    files: list[ChatFile] = Field(default=[], max_length=_MOST_FILES)

    @model_validator(mode="after")
    def _sent_by_a_person(self) -> ChatTurn:
        if self.files and self.role != "user":
            raise ValueError("no service takes files in an answer of the assistant")
        return self


class ChatInput(_LlmRequest):
    """The input of ``chat``."""

    prompt: str = Field(description="What the model is asked.")
    instructions: str | None = Field(default=None, description="How it should answer.")
    files: list[ChatFile] = Field(
        default=[], max_length=_MOST_FILES, description="Images and PDFs that go with the prompt."
    )
    history: list[ChatTurn] = Field(default=[], max_length=1_000, description="The talk before.")
    max_tokens: int | None = Field(default=None, ge=1, description="The most tokens to answer.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="How freely it answers."
    )


class StructuredInput(ChatInput):
    """The input of ``structured``."""

    output_schema: dict[str, Any] = Field(description="The JSON Schema of the output, an object.")
    retries: int = Field(default=2, ge=0, le=5, description="Answers asked for again at most.")


class EmbedInput(_LlmRequest):
    """The input of ``embed``."""

    texts: list[str] = Field(min_length=1, max_length=2_000, description="The texts to embed.")
    purpose: Literal["document", "query"] = Field(
        default="document", description="Whether they are searched, or search."
    )


class _Paid(BaseModel):
    service: str
    model: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="In US dollars; null if the price is unknown.")


class ChatOutput(_Paid):
    """The output of ``chat``."""

    text: str
    finish_reason: str | None = Field(description="Why it ended: stop, or length if it was cut.")


class StructuredOutput(_Paid):
    """The output of ``structured``."""

    output: dict[str, Any]
    requests: int = Field(description="Answers that it took.")


class EmbedOutput(_Paid):
    """The output of ``embed``."""

    embeddings: list[list[float]]
