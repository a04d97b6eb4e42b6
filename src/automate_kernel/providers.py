"""
Providers: capabilities (an LLM, a calculation, a tool) that workflows call.

::

    class Greeter(BaseProvider):
        key = "greeter"
        display_name = "Greeter"

        @capability(idempotent=True)
        def greet(self, name: str) -> dict[str, str]:
            return {"text": f"Hello {name}"}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, overload

from automate_kernel.operations.context import ProviderContext
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.schemas import Schema
from automate_kernel.operations.spec import (
    OperationSpec,
    find_operation,
    index_operations,
    mark_operation,
    marked_operations,
)
from automate_kernel.plugins.kinds import PROVIDER
from automate_kernel.plugins.registry import Policy, Registry

__all__ = ["BaseProvider", "CapabilitySpec", "ProviderContext", "ProviderRegistry", "capability"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class CapabilitySpec(OperationSpec):
    """What one capability of a provider takes and gives."""


@overload
def capability(name: F, /) -> F: ...


@overload
def capability(
    name: str | None = None,
    /,
    *,
    idempotent: bool = False,
    title: str = "",
    description: str | None = None,
    input_schema: Schema = None,
    output_schema: Schema = None,
) -> Callable[[F], F]: ...


def capability(name: Any = None, /, **options: Any) -> Any:
    """
    Make a method of a provider one of its capabilities.

    ``@capability``, ``@capability("name")`` and ``@capability(idempotent=True)`` all work. How
    the method takes its input says `operation_from_function`.
    """
    return mark_operation(name, options, "capability")


class BaseProvider(Plugin):
    """
    Base of all providers.

    A subclass sets `key` and `display_name`, and marks methods with `capability`, or overrides
    `capabilities` and `execute_capability`.
    """

    _noun: ClassVar[str] = "provider"

    def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
        self.config: Mapping[str, Any] = config
        self.ctx: ProviderContext = ctx

    @classmethod
    def capabilities(cls) -> list[CapabilitySpec]:
        """What the provider can do: by default, its methods marked with `capability`."""
        return marked_operations(cls, CapabilitySpec)

    @classmethod
    def find_capability(cls, name: str) -> CapabilitySpec:
        """The capability called *name*, or ``INVALID_ARGUMENT`` that says what there is."""
        # Kept per class, not inherited: a subclass has capabilities of its own.
        if "_capability_index" not in cls.__dict__:
            cls._capability_index = index_operations(cls.capabilities(), cls._title())
        return find_operation(cls._capability_index, name, noun="capability", owner=cls._title())

    _capability_index: ClassVar[Mapping[str, CapabilitySpec]]

    def execute_capability(self, name: str, input_data: dict[str, Any]) -> Any:
        """
        Do what the capability *name* says. Mark methods, or override it (``def``, ``async def``).

        The kernel calls `call_capability`, which checks the input first.
        """
        return self.find_capability(name).call(input_data, self)

    def call_capability(self, name: str, input_data: Mapping[str, Any]) -> Any:
        """
        The capability's output as a JSON value, or an awaitable of it if the capability is async.

        Raises nothing but `AutomateError`: for input that is not valid before the call, and as
        `normalize_error` words it afterwards.
        """
        spec = self.find_capability(name)
        value = spec.validate(input_data)
        # The default would only look up and check again.
        plain = type(self).execute_capability is BaseProvider.execute_capability
        given = value if plain else dict(input_data)
        return self._perform(spec, lambda: self.execute_capability(name, given))


class ProviderRegistry(Registry[type[BaseProvider]]):
    """
    The providers that the host has: registered, listed in its settings, installed, or built in.

    Nothing is imported before a provider is asked for.
    """

    def __init__(
        self,
        settings: Iterable[str] | Mapping[str, str] = (),
        *,
        discover: bool = True,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(PROVIDER, settings, discover=discover, policy=policy)

    def create(
        self, key: str, config: Mapping[str, Any] | None = None, ctx: ProviderContext | None = None
    ) -> BaseProvider:
        """An instance of the provider *key*, with its config checked."""
        return create(self.get(key), config, ctx or ProviderContext(key=key))

    @property
    def names(self) -> dict[str, str]:
        """The names for people, by key. Loads every provider; broken ones are left out."""
        return {key: cls.display_name or key for key, cls in self.load_all().items()}

    def specs(self) -> dict[str, list[CapabilitySpec]]:
        """All capabilities, by provider key. Loads every provider; broken ones are left out."""
        return {key: cls.capabilities() for key, cls in self.load_all().items()}
