"""The parts of a kernel, and how they are put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from automate_kernel.catalogue import Catalogue
from automate_kernel.errors import ConfigError
from automate_kernel.invocation import Invoker
from automate_kernel.logs import get_logger
from automate_kernel.outbox import OutboxStore, RowsOutboxStore
from automate_kernel.plugins import Plugins
from automate_kernel.secrets import EnvSecretsBackend, Redactor, SecretResolver, SecretsBackend
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.templates import (
    EnvironmentResolver,
    FilterRegistry,
    TemplateContext,
    TemplateEngine,
)
from automate_kernel.templates.filters import default_filters
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.runner import Runner
from automate_kernel.workflows.state import ExecutionStore
from automate_kernel.workflows.supply import WorkflowSource

__all__ = ["Assembly"]

logger: logging.Logger = get_logger(__name__)


class Assembly:
    """A kernel's parts, from what the host gave."""

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        plugins: Iterable[Any] = (),
        config: Mapping[str, Mapping[str, Any]] | None = None,
        secrets: SecretsBackend | Iterable[Any] | Mapping[str, str] | None = None,
        workflows: Iterable[Workflow | str | Path] = (),
        workflow_source: WorkflowSource | None = None,
        outbox: OutboxStore | None = None,
        env_allow: Iterable[str] = (),
        settings: Mapping[str, Any] | None = None,
        discover: bool = True,
        strict: bool = False,
        disabled: Iterable[str] = (),
        winners: Mapping[str, str] | None = None,
        listed: Mapping[str, Any] | None = None,
        lease_seconds: float = 300.0,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> None:
        if storage is not None:
            _require_storage(storage)
        theirs: Storage | None = getattr(outbox, "storage", None)
        if storage is not None and theirs is not None and theirs is not storage:
            raise ConfigError(
                "the outbox is in another storage than the one that was given",
                hint="pass the outbox alone, or Kernel(outbox.storage, outbox=outbox)",
            )
        self.storage: Storage = storage or theirs or MemoryStorage()
        """Where everything is kept."""
        self.plugins: Plugins = Plugins(discover, strict, disabled, winners, settings=listed)
        """The plugins of every kind, those that can't be used too."""
        for plugin in plugins:
            self.plugins.register(plugin)
        self.redactor: Redactor = Redactor()
        """Takes the secrets that were resolved out of texts and values."""
        self.secrets: SecretResolver = SecretResolver(self._backends(secrets), self.redactor)
        """Looks secrets up, and checks whether they can be: `SecretResolver.check`."""
        self.env: EnvironmentResolver = EnvironmentResolver(tuple(env_allow))
        """The environment variables that templates may read."""
        self.filters: FilterRegistry = FilterRegistry(default_filters)
        """The template filters of this kernel."""
        self.templates: TemplateEngine = TemplateEngine(self.filters)
        """Compiles and renders templates."""
        self.outbox: OutboxStore = outbox or RowsOutboxStore(
            self.storage,
            lease_seconds=lease_seconds,
            retention_seconds=retention_seconds,
            failed_retention_seconds=failed_retention_seconds,
        )
        """The items that wait, run and are done: enqueue, find, pause, limit, cancel, requeue."""
        self._invoker = Invoker(
            self.plugins,
            self.secrets,
            config=config or {},
            settings=settings or {},
            compile_config=self._render_config,
        )
        self.executions: ExecutionStore = ExecutionStore(self.storage, self.outbox)
        """Runs of workflows: get, find, cancel, resume."""
        self.purges: list[Callable[..., int]] = []
        """What a host deletes of its own: called with ``older_than_seconds`` and ``limit``."""
        self.workflows: Catalogue = Catalogue(
            self.templates, self._context, self.executions.definition, workflow_source
        )
        """The workflows that this kernel knows, by name."""
        self._runner = Runner(
            self.executions,
            invoke=self._invoker.invoke,
            around=lambda execution: self.plugins.around("automate_executing", execution=execution),
            programs=self.workflows.program,
            listening=self.workflows.listening,
            sender=self,
        )
        self._wire()
        self._add_plugin_filters()
        # First, since the templates of a file may use a filter that is made here.
        self.plugins.hook.automate_configure(kernel=self)
        if strict:
            self.plugins.load_all()
        for workflow in workflows:
            self.workflows.add(workflow)
        for told in self._invoker.unused_config():
            # More plugins may come, so it is no error; but a near miss is a slip.
            if "did you mean" in told:
                logger.warning("%s", told)

    @property
    def unused_config(self) -> list[str]:
        """A line for each key of *config* that no connector and no provider has."""
        return self._invoker.unused_config()

    def _wire(self) -> None:
        """Connect the parts with what the kernel does; before plugins and workflows come in."""
        raise NotImplementedError

    def _backends(self, secrets: Any) -> Iterable[SecretsBackend]:
        from automate_kernel.secrets import MemorySecretsBackend

        if secrets is None:
            return [EnvSecretsBackend()]
        if isinstance(secrets, Mapping):
            return [MemorySecretsBackend(secrets)]
        given = [secrets] if isinstance(secrets, (str, SecretsBackend)) else list(secrets)
        return [one if isinstance(one, SecretsBackend) else self._backend(one) for one in given]

    def _backend(self, name: Any) -> SecretsBackend:
        """A backend from its class, dotted path or plugin key."""
        if isinstance(name, str) and name not in self.plugins.keys("secrets_backend"):
            from automate_kernel.plugins.loading import load_target, normal_target

            name = load_target(normal_target(name))
        cls = self.plugins.get("secrets_backend", name) if isinstance(name, str) else name
        try:
            backend: SecretsBackend = cls()
        except TypeError as error:
            raise ConfigError(
                f"the secrets backend {getattr(cls, '__name__', cls)} needs arguments",
                hint="pass an instance instead of its path",
            ) from error
        return backend

    def _render_config(self, config: Any) -> Any:
        return self.templates.compile(config, "config").render(TemplateContext(env=self.env))

    def _context(self, event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
        return TemplateContext(event, execution, steps, self.env, extra)

    def _add_plugin_filters(self) -> None:
        # A broken one is logged and left out, unless the host is strict.
        for key, function in self.plugins.filters.load_all().items():
            self.filters.register(key, function, replace=True)

    def close(self) -> None:
        """Close plugins, secrets backends, threads and what the storage opened."""
        self._runner.close()
        self._invoker.close()
        self.secrets.close()
        self.storage.close()


def _require_storage(storage: object) -> None:
    if not isinstance(storage, type) and hasattr(storage, "begin") and hasattr(storage, "describe"):
        return
    kind = f"the class {storage.__name__}" if isinstance(storage, type) else type(storage).__name__
    # Not the value, which may be a URL with a password.
    raise ConfigError(
        f"a kernel's storage can't be {_an(kind)}",
        hint=(
            "pass a storage: SqlAlchemyStorage(engine or URL) of automate_sqlalchemy,"
            " DjangoStorage() of automate_django, or MemoryStorage()"
        ),
    )


def _an(kind: str) -> str:
    if kind.startswith("the "):
        return kind
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
