"""automate-kernel on SQLAlchemy: the host's engine, session and migrations."""

from .outbox import OptimisticClaimOutboxStore, OutboxReaper, SkipLockedClaimOutboxStore
from .storage import SqlAlchemyRows, SqlAlchemyStorage
from .tables import metadata

__all__ = [
    "OptimisticClaimOutboxStore",
    "OutboxReaper",
    "SkipLockedClaimOutboxStore",
    "SqlAlchemyRows",
    "SqlAlchemyStorage",
    "metadata",
]
