"""Parts of the contract of an `OutboxStore`, by what a variant of a store does in its own way."""

from __future__ import annotations

from automate_testing.contracts.outbox.claim import ClaimContract, OrderingContract, SharingContract
from automate_testing.contracts.outbox.enqueue import EnqueueContract
from automate_testing.contracts.outbox.lease import LeaseContract
from automate_testing.contracts.outbox.limits import ConcurrencyKeyContract, LimitsContract
from automate_testing.contracts.outbox.operators import OperatorContract, RetentionContract


class ClaimsContract(
    ClaimContract,
    OrderingContract,
    SharingContract,
    LeaseContract,
    LimitsContract,
    ConcurrencyKeyContract,
):
    """What depends on how items are claimed and finished."""


class ClockContract(
    EnqueueContract, ClaimContract, LeaseContract, LimitsContract, RetentionContract
):
    """What compares times: of the database's clock, where no test moves one."""


class ConnectionContract(EnqueueContract, ClaimContract, LeaseContract, OperatorContract):
    """What each kind of statement and transaction does, whatever connection it gets."""
