"""automate-kernel on SQLAlchemy: the application's engine, session and migrations."""

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401
except ModuleNotFoundError:
    raise ImportError(
        "automate_sqlalchemy needs SQLAlchemy: pip install 'automate-kernel[sqlalchemy]'",
        name="sqlalchemy",
    ) from None

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
