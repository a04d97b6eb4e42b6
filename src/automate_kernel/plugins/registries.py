"""The registries of connectors and of providers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from automate_kernel.operations.context import PluginContext
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins.connectors import Connector
from automate_kernel.plugins.kinds import CONNECTOR, PROVIDER, Kind
from automate_kernel.plugins.providers import BaseProvider
from automate_kernel.plugins.records import Policy
from automate_kernel.plugins.registry import Registry

P = TypeVar("P", bound=Plugin)


class OperationRegistry(Registry[type[P]], Generic[P]):
    """The common part of `ConnectorRegistry` and `ProviderRegistry`."""

    plugin_kind: ClassVar[Kind]

    def __init__(
        self,
        settings: Iterable[str] | Mapping[str, str] = (),
        *,
        discover: bool = True,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(self.plugin_kind, settings, discover=discover, policy=policy)

    def create(
        self, key: str, config: Mapping[str, Any] | None = None, ctx: PluginContext | None = None
    ) -> P:
        """Return an instance of the plugin *key*, with its config checked."""
        cls = self.get(key)
        return create(cls, config, ctx or cls.context_class(key=key))

    @property
    def names(self) -> dict[str, str]:
        """The display names, by key. Loads every plugin; broken ones are left out."""
        return {key: cls.display_name or key for key, cls in self.load_all().items()}

    def specs(self) -> dict[str, Sequence[OperationSpec]]:
        """Return all operations, by key. Loads every plugin; broken ones are left out."""
        return {key: cls.operation_specs() for key, cls in self.load_all().items()}


class ConnectorRegistry(OperationRegistry[Connector]):
    """The connectors of a host: registered, listed in its settings, installed, or built in."""

    plugin_kind: ClassVar[Kind] = CONNECTOR


class ProviderRegistry(OperationRegistry[BaseProvider]):
    """The providers of a host: registered, listed in its settings, installed, or built in."""

    plugin_kind: ClassVar[Kind] = PROVIDER
