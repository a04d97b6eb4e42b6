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


# The libraries that send everything by the client that they are given, which has been tried. Others
# (boto3, gRPC, aiohttp) have a client of their own, which reads answers of any size.
_BOUNDED = frozenset({"anthropic", "cohere", "google", "groq", "mistralai", "openai"})
_LOCAL = "sentence-transformers"  # asks no service


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
            f"the model {service.model!r} can't be used: {_reason_in(error)}",
            hint="check its name, and whether the service needs an api_key or takes a base_url",
        ) from None


def _reason_in(error: Exception) -> str:
    """Return the reason that is known to hold nothing of the config, or the kind of the error."""
    text = str(error)
    known = ("Unknown provider", "Unknown model", "Unknown embeddings model", "Set the `")
    return text.partition(". ")[0][:200] if text.startswith(known) else type(error).__name__


def _provider_factory(service: LlmService, clients: HttpClients) -> Callable[[str], Any]:
    def provider(name: str) -> Any:
        given: dict[str, Any] = {}
        if service.api_key is not None:
            given["api_key"] = service.api_key.get_secret_value()
        if service.base_url is not None:
            given["base_url"] = service.base_url
        cls: Any = infer_provider_class(name)
        if name == _LOCAL:
            return cls(**given)
        client = clients.client_for(cls, service)
        if client is None:
            raise _unbounded(name)
        try:
            made = cls(**given, http_client=client)
        except ValueError as error:
            # A model that has the parameter, and refuses it.
            raise (_unbounded(name) if "http_client" in str(error) else error) from None
        if not _sends_by(made, client):
            raise _unbounded(name)
        # Releases of Pydantic AI for Python 3.10 have no setting for it.
        if hasattr(made.client, "max_retries"):
            made.client.max_retries = 0
        return made

    return provider


def _sends_by(provider: Any, client: Any) -> bool:
    """Return True if it is known that *provider* sends everything by *client*."""
    own = provider.client
    libraries = {each.__module__.partition(".")[0] for each in type(own).__mro__}
    return own is client or not libraries.isdisjoint(_BOUNDED)


def _unbounded(name: str) -> ConfigError:
    return ConfigError(
        f"the service {name!r} can't be used: its library has a client of its own, whose answers"
        " nothing bounds in size and time",
        hint="take a service that is compatible with OpenAI's, or make a model of your own for an"
        " agent",
    )
