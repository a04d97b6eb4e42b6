"""Models of services, made of their config."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.providers import infer_provider_class
from pydantic_ai.settings import ModelSettings

from automate_kernel import ConfigError

if TYPE_CHECKING:
    from pydantic_ai.embeddings import EmbeddingModel

    from automate_llm.config import LlmService
    from automate_llm.http_client import HttpClients


def model_of(service: LlmService, clients: HttpClients) -> Model:
    """Return the model of a *service*; raises `ConfigError` if it can't be made."""
    factory = _provider_factory(service, clients)
    made: Model = _made(service, lambda: infer_model(service.model, factory))
    return made


def embedding_model_of(service: LlmService, clients: HttpClients) -> EmbeddingModel:
    """Return the model that embeds; raises `ConfigError` if it can't be made."""
    from pydantic_ai.embeddings import infer_embedding_model

    name = service.model.replace("openai-chat:", "openai:", 1)
    factory = _provider_factory(service, clients)
    made: EmbeddingModel = _made(
        service, lambda: infer_embedding_model(name, provider_factory=factory)
    )
    return made


def settings_of(
    service: LlmService, *, max_tokens: int | None, temperature: float | None
) -> ModelSettings:
    """Return the settings of a request: a call may ask for less than the service may give."""
    most = service.max_tokens if max_tokens is None else min(max_tokens, service.max_tokens)
    settings: dict[str, Any] = {"max_tokens": most, "timeout": service.timeout_seconds}
    settings["max_retries"] = 0  # the kernel tries again, where people see it
    if (chosen := service.temperature if temperature is None else temperature) is not None:
        settings["temperature"] = chosen
    return cast("ModelSettings", settings)  # older releases don't know max_retries


def _made(service: LlmService, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ImportError as error:
        extra = service.model.partition(":")[0].partition("-")[0]
        raise ConfigError(
            f"the model {service.model!r} needs a library that is not installed",
            hint=f"pip install 'pydantic-ai-slim[{extra}]'",
        ) from error
    except (ValueError, TypeError, UserError) as error:
        raise ConfigError(
            f"the model {service.model!r} can't be used: {type(error).__name__}",
            hint="check its name, and whether the service needs an api_key or takes a base_url",
        ) from None


def _provider_factory(service: LlmService, clients: HttpClients) -> Callable[[str], Any]:
    def provider(name: str) -> Any:
        given: dict[str, Any] = {}
        if service.api_key is not None:
            given["api_key"] = service.api_key.get_secret_value()
        if service.base_url is not None:
            given["base_url"] = service.base_url
        cls: Any = infer_provider_class(name)
        if (http_client := clients.client_for(cls, service)) is not None:
            given["http_client"] = http_client
        made = cls(**given)
        # Releases of Pydantic AI for Python 3.10 have no setting for it.
        client: Any = getattr(made, "client", None)
        if hasattr(client, "max_retries"):
            client.max_retries = 0
        return made

    return provider
