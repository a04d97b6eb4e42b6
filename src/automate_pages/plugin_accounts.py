"""The accounts of plugins at their services, and the state of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from automate_kernel.access.accounts import ACCOUNT_KINDS
from automate_kernel.kernel import Kernel
from automate_kernel.operations.account import Account, AccountStatus
from automate_kernel.operations.error_mapping import normalize
from automate_kernel.operations.plugin import Plugin
from automate_kernel.plugins.manifest import ManifestError, installed_manifest
from automate_kernel.plugins.records import PluginRecord, PluginState


@dataclass(frozen=True, slots=True)
class PluginAccount:
    """The account of one plugin; *problem* says why it, or its state, can't be had."""

    kind: str
    key: str
    account: Account | None = None
    status: AccountStatus | None = None
    problem: str = ""


def plugin_accounts(kernel: Kernel, tenant: str | None) -> Iterator[PluginAccount]:
    """Yield the accounts of a tenant, or for None of the application; imports their plugins."""
    for kind in ACCOUNT_KINDS:
        registry = kernel.plugins.registry(kind)
        for known in sorted(registry.records(), key=lambda one: one.key):
            key = known.key
            if not known.usable:
                continue
            try:
                if not _may_have_account(known) or registry.get(key).oauth is Plugin.oauth:
                    continue
                account = kernel.operations.instance(kind, key).oauth()
                account = account.for_tenant(tenant) if account is not None else None
            except Exception as error:  # of a plugin, which takes no other's place on the page
                yield PluginAccount(kind, key, problem=str(normalize(error)))
                continue
            if account is None:
                continue
            try:
                yield PluginAccount(kind, key, account, account.status(kernel.secrets))
            except Exception as error:
                yield PluginAccount(kind, key, account, problem=str(normalize(error)))


def _may_have_account(record: PluginRecord) -> bool:
    """Return False for a plugin that needs no import to say that it has no account."""
    if record.state is PluginState.LOADED:
        return True  # its class says it
    try:
        manifest = installed_manifest(record)
        return manifest is None or manifest.has_account(record.kind, record.target) is not False
    except ManifestError:
        return True
