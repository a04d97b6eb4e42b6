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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from automate_kernel.operations.context import ProviderContext
from automate_kernel.operations.field_options import FieldOption, options
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.spec import OperationSpec, decorating, marked_operations

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from automate_kernel.operations.spec import OperationOptions

__all__ = [
    "BaseProvider",
    "CapabilitySpec",
    "FieldOption",
    "ProviderContext",
    "capability",
    "options",
]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class CapabilitySpec(OperationSpec):
    """The input and output of one capability of a provider."""


@overload
def capability(name: F, /) -> F: ...


@overload
def capability(
    name: str | None = None, /, **options: Unpack[OperationOptions]
) -> Callable[[F], F]: ...


def capability(name: Any = None, /, **options: Unpack[OperationOptions]) -> Any:
    """
    Make a method of a provider one of its capabilities.

    ``@capability``, ``@capability("name")`` and ``@capability(idempotent=True)`` all work. See
    `operation_from_function` for the method's parameters.
    """
    return decorating(name, options, "capability")


class BaseProvider(Plugin):
    """
    Base of all providers.

    A subclass sets `key` and `display_name`, and marks methods with `capability`, or overrides
    `capabilities` and `execute_capability`.
    """

    context_class: ClassVar[type[ProviderContext]] = ProviderContext
    _noun: ClassVar[str] = "provider"
    _operation_noun: ClassVar[str] = "capability"
    _lister: ClassVar[str] = "capabilities"
    _performer: ClassVar[str] = "execute_capability"

    def __init__(self, config: dict[str, Any], *, ctx: ProviderContext) -> None:
        self.config: Mapping[str, Any] = config
        self.ctx: ProviderContext = ctx

    @classmethod
    def capabilities(cls) -> list[CapabilitySpec]:
        """Return the specs of the capabilities: by default, of the methods marked `capability`."""
        return marked_operations(cls, CapabilitySpec, "capability")

    @classmethod
    def operation_specs(cls) -> list[CapabilitySpec]:
        """Return the same as `capabilities`."""
        return cls.capabilities()

    def execute_capability(self, name: str, input_data: dict[str, Any]) -> Any:
        """
        Carry out the capability *name*. Mark methods, or override it (``def``, ``async def``).

        The kernel calls `call_capability`, which checks the input first.
        """
        return self.find_operation(name).call(input_data, self)

    def call_capability(self, name: str, input_data: Mapping[str, Any]) -> Any:
        """Return the capability's output, or an awaitable of it; see `Plugin.call_operation`."""
        # The default would only look up and check again.
        raw = type(self).execute_capability is not BaseProvider.execute_capability
        return self._call(name, input_data, self.execute_capability, raw=raw)

    def call_operation(self, name: str, input_data: Mapping[str, Any]) -> Any:
        """Return the same as `call_capability`."""
        return self.call_capability(name, input_data)
