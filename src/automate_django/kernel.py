"""The project's kernel, made from its settings at first use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from automate_kernel.errors import ConfigError

from . import conf
from .storage import DjangoStorage

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.outbox import OutboxStore

__all__ = ["aemit", "emit", "get_kernel"]

_lock = threading.RLock()
_kernel: Kernel | None = None

STORES = {
    "skip_locked": "automate_django.outbox.SkipLockedClaimOutboxStore",
    "optimistic": "automate_django.outbox.OptimisticClaimOutboxStore",
}


def get_kernel() -> Kernel:
    """The one kernel of this process; raises `ConfigError` if the settings are wrong."""
    global _kernel
    if _kernel is None:
        with _lock:
            if _kernel is None:
                _kernel = build_kernel()
    return _kernel


def forget_kernel(setting: str = "AUTOMATE_", **_: Any) -> None:
    """Have the next `get_kernel` build a new one; ``override_settings`` leads here."""
    global _kernel
    if setting.startswith("AUTOMATE_") or setting == "DATABASES":
        with _lock:
            _kernel = None


def build_kernel() -> Kernel:
    """A kernel made from the settings, of which each call gives a new one."""
    from automate_kernel.kernel import Kernel

    store = outbox_store()
    plugins = conf.options("AUTOMATE_PLUGINS")
    kernel = Kernel(
        store.storage,
        outbox=store,
    )
    return kernel


def outbox_store() -> OutboxStore:
    """The outbox that ``AUTOMATE_OUTBOX`` describes."""
    listen = bool(conf.option("AUTOMATE_OUTBOX", "LISTEN", True))
    storage = DjangoStorage(conf.option("AUTOMATE_OUTBOX", "USING"), listen=listen)
    name = conf.option("AUTOMATE_OUTBOX", "STORE")
    if name is None:
        # Where one writer holds the whole file there are no rows to skip.
        name = "skip_locked" if storage.supports_skip_locked else "optimistic"
    store = conf.load(STORES.get(name, name), "AUTOMATE_OUTBOX['STORE']")
    lease_seconds = conf.option("AUTOMATE_OUTBOX", "LEASE_SECONDS", 300)
    made: OutboxStore = store(storage, lease_seconds=lease_seconds) if isinstance(store, type) else store
    return made


def emit(name: str, payload: Any = None, **options: Any) -> str:
    """
    Accept an event and return its id; it exists exactly if the open ``atomic()`` block commits.

    *options* are those of `automate_kernel.kernel.Kernel.emit`: ``source``, ``tenant_id``,
    ``delay``, ``idempotency_key`` and so on.
    """
    return get_kernel().emit(name, payload, **options)


async def aemit(name: str, payload: Any = None, **options: Any) -> str:
    """`emit` for asynchronous code: an async view, say. It commits at once."""
    return await get_kernel().aemit(name, payload, **options)
