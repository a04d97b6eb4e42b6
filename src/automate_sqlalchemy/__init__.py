"""automate-kernel on SQLAlchemy: the host's engine, session and migrations."""

from automate_sqlalchemy.outbox import (
    OptimisticClaimOutboxStore,
    OutboxReaper,
    SkipLockedClaimOutboxStore,
)
from automate_sqlalchemy.storage import SqlAlchemyRows, SqlAlchemyStorage
from automate_sqlalchemy.tables import metadata

__all__ = [
    "OptimisticClaimOutboxStore",
    "OutboxReaper",
    "SkipLockedClaimOutboxStore",
    "SqlAlchemyRows",
    "SqlAlchemyStorage",
    "metadata",
]
