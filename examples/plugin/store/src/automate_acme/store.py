"""The outbox store of Acme Inc."""

from automate_kernel.outbox import SkipLockedClaimOutboxStore


class AcmeOutboxStore(SkipLockedClaimOutboxStore):
    """The kernel's own store, in the application's database, until you keep items elsewhere."""
