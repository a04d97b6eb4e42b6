"""The project's kernel, made from its settings at first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import autodiscover_modules

from automate_django import conf
from automate_django.storage import DjangoStorage
from automate_kernel.base.errors import ConfigError
from automate_kernel.base.forks import new_rlock
from automate_kernel.operations.plugin_config import ConfigPlaces
from automate_kernel.workflows.automation import Automation

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.outbox import OutboxStore
    from automate_kernel.outbox.labels import Labels

STORES = {
    "skip_locked": "automate_django.outbox.SkipLockedClaimOutboxStore",
    "optimistic": "automate_django.outbox.OptimisticClaimOutboxStore",
}
"""The stores that ``AUTOMATE_OUTBOX["STORE"]`` can name without a path."""
_outbox = partial(conf.option, "AUTOMATE_OUTBOX")
# Django's own settings that a kernel is made of.
_OTHERS = ("DATABASES", "TASKS", "SECRET_KEY", "SECRET_KEY_FALLBACKS")
_lock = new_rlock()
_kernel: Kernel | None = None
_extensions: list[Callable[[Kernel], None]] = []
_building = False

automation: Automation = Automation()
"""The actions and workflows of the project's apps, collected by `action` and `workflow`."""
action = automation.action
workflow = automation.workflow


def get_kernel() -> Kernel:
    """Return the one kernel of this process; raises `ConfigError` if the settings are wrong."""
    global _building, _kernel  # noqa: PLW0603  (one for the process)
    if _kernel is None:
        with _lock:
            if _building:
                raise ConfigError(
                    "get_kernel() is called while the kernel is being made",
                    hint="in automation.py use the decorators of automate_django: action, workflow",
                )
            if _kernel is None:
                _building = True
                try:
                    _kernel = build_kernel()
                finally:
                    _building = False
    return _kernel


def current_kernel() -> Kernel | None:
    """Return the kernel of this process, or None before its first use."""
    return _kernel


def forget_kernel(setting: str = "AUTOMATE_", **_: Any) -> None:
    """Have the next `get_kernel` build a new kernel; ``override_settings`` leads here."""
    global _kernel
    if setting.startswith("AUTOMATE_") or setting in _OTHERS:
        with _lock:
            former, _kernel = _kernel, None
        if former is not None:
            former.close()


def extend_kernel(extension: Callable[[Kernel], None]) -> None:
    """Call *extension* with each kernel that is built: an app adds its handlers this way."""
    if extension not in _extensions:
        _extensions.append(extension)


_PLACES = ConfigPlaces(
    "write it in the settings: AUTOMATE_CONFIG = {{{key!r}: {{{entries}}}}}",
    stands="it stands in the settings: AUTOMATE_CONFIG[{key!r}]",
)


def build_kernel(workflows: Iterable[Any] | None = None) -> Kernel:
    """Make another kernel from the settings, with *workflows* instead of theirs."""
    # At first use, since a management command such as migrate needs none of it.
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.steer.documents import StoredWorkflows

    make_storage = conf.replaced("storage", DjangoStorage)
    storage = make_storage(_outbox("USING"), listen=bool(_outbox("LISTEN")))
    kernel = conf.replaced("kernel", Kernel)(
        storage,
        outbox=outbox_store(storage),
        lease_seconds=float(_outbox("LEASE_SECONDS")),
        retention_seconds=_outbox("RETENTION_SECONDS"),
        failed_retention_seconds=_outbox("FAILED_RETENTION_SECONDS"),
        output_store=conf.output_store(),
        audit_retention_seconds=conf.option("AUTOMATE_ADMIN", "AUDIT_RETENTION_SECONDS"),
        listed={
            "provider": conf.listed("AUTOMATE_PROVIDERS"),
            "connector": conf.listed("AUTOMATE_CONNECTORS"),
            "hook": conf.listed("AUTOMATE_HOOKS"),
        },
        config=conf.options("AUTOMATE_CONFIG"),
        executors=conf.options("AUTOMATE_EXECUTORS"),
        relays=conf.options("AUTOMATE_RELAYS"),
        subscriptions=conf.options("AUTOMATE_SUBSCRIPTIONS"),
        secrets=conf.secrets_backends(),
        workflows=conf.workflows() if workflows is None else workflows,
        workflow_source=conf.replaced("workflow_source", StoredWorkflows)(storage),
        env_allow=conf.listed("AUTOMATE_ENV_ALLOW"),
        discover=conf.option("AUTOMATE_PLUGINS", "DISCOVER"),
        disabled=conf.option("AUTOMATE_PLUGINS", "DISABLED"),
        winners=conf.option("AUTOMATE_PLUGINS", "WINNERS"),
        strict=conf.option("AUTOMATE_PLUGINS", "STRICT"),
        signing_keys=conf.signing_keys(),
        public_url=conf.option("AUTOMATE_APPROVALS", "PUBLIC_URL"),
        version=conf.options("AUTOMATE_WORKER").get("VERSION"),
    )
    kernel.operations.places = _PLACES
    if conf.option("AUTOMATE_PLUGINS", "AUTODISCOVER"):
        autodiscover_modules("automation")
    kernel.include(automation)
    for extension in _extensions:
        extension(kernel)
    return kernel


def outbox_store(storage: DjangoStorage) -> OutboxStore | str:
    """Return the outbox that ``AUTOMATE_OUTBOX`` describes, or the key of an installed one."""
    name = _outbox("STORE")
    if name is None:
        # Where one writer holds the whole file there are no rows to skip.
        name = "skip_locked" if storage.supports_skip_locked else "optimistic"
    if conf.option("AUTOMATE_OVERRIDES", "outbox_store") is not None:
        from automate_kernel.outbox import OutboxStore

        store: Any = conf.replaced("outbox_store", OutboxStore)
    elif name not in STORES and conf.is_plugin_key(name):
        return str(name)
    else:
        store = conf.load(STORES.get(name, name), "AUTOMATE_OUTBOX['STORE']")
    if not isinstance(store, type):
        raise ConfigError("AUTOMATE_OUTBOX['STORE'] is no class", hint="name an OutboxStore")
    made: OutboxStore = store(storage, lease_seconds=float(_outbox("LEASE_SECONDS")))
    made.retention_seconds = _outbox("RETENTION_SECONDS")
    made.failed_retention_seconds = _outbox("FAILED_RETENTION_SECONDS")
    return made


def emit(
    name: str,
    payload: Any = None,
    *,
    transaction: Any = None,
    source: str = "",
    tenant_id: str | None = None,
    delay: float | timedelta = 0.0,
    priority: int = 0,
    idempotency_key: str | None = None,
    ordering_key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    labels: Labels | None = None,
) -> str:
    """
    Accept an event and return its id; it exists exactly if the open ``atomic()`` block commits.

    See `automate_kernel.kernel.Kernel.emit`.
    """
    return get_kernel().emit(
        name, payload, transaction=transaction, source=source, tenant_id=tenant_id, delay=delay,
        priority=priority, idempotency_key=idempotency_key, ordering_key=ordering_key,
        headers=headers, labels=labels,
    )  # fmt: skip


async def aemit(
    name: str,
    payload: Any = None,
    *,
    transaction: Any = None,
    source: str = "",
    tenant_id: str | None = None,
    delay: float | timedelta = 0.0,
    priority: int = 0,
    idempotency_key: str | None = None,
    ordering_key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    labels: Labels | None = None,
) -> str:
    """Accept an event as `emit` does, from asynchronous code. It commits at once."""
    return await get_kernel().aemit(
        name, payload, transaction=transaction, source=source, tenant_id=tenant_id, delay=delay,
        priority=priority, idempotency_key=idempotency_key, ordering_key=ordering_key,
        headers=headers, labels=labels,
    )  # fmt: skip
