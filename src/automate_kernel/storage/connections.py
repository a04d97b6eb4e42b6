"""The connections that a database server takes, and how many are open."""

from __future__ import annotations

from dataclasses import dataclass

from automate_kernel.storage.errors import ROOM
from automate_kernel.storage.rows import Rows, Storage
from automate_kernel.storage.shortage import Shortage, TooManyConnectionsError

# A server is as good as full with so few places left, or with this share of them.
_FEW, _SHARE = 1, 20
BESIDE_SLOTS: int = 10
"""The connections of a worker beside those of its slots: of its threads, and for notices."""

# Of sessions of others a user sees nothing but their number.
_POSTGRESQL = """
SELECT current_setting('max_connections')::int, CASE WHEN rolsuper THEN 0 ELSE
  current_setting('superuser_reserved_connections')::int
  + COALESCE(current_setting('reserved_connections', true)::int, 0) END,
  (SELECT sum(numbackends) FROM pg_stat_database)::int,
  datconnlimit, (SELECT numbackends FROM pg_stat_database WHERE datname = current_database()),
  rolconnlimit, (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user)
FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
"""
_MYSQL = """
SELECT @@max_connections, @@max_user_connections, COUNT(*) FROM information_schema.PROCESSLIST
WHERE USER = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)
"""


@dataclass(frozen=True, slots=True)
class Connections:
    """
    The connections that a server takes, and those that are open.

    *setting* names what bounds them. *reserved* of them are kept for others than us.
    """

    setting: str
    limit: int
    reserved: int
    used: int

    @property
    def room(self) -> int:
        """The number that we may have, together with everybody else."""
        return max(0, self.limit - self.reserved)

    @property
    def scarce(self) -> bool:
        """True if nearly no place is left."""
        return self.room - self.used <= max(_FEW, self.room // _SHARE)


def read_connections(rows: Rows) -> Connections | None:
    """
    Return the narrowest bound of connections; None for a database without one.

    A pooler in between has bounds of its own, which nobody sees from here.
    """
    if rows.dialect.name == "postgresql":
        most, reserved, used, database, there, role, ours = rows.run(_POSTGRESQL, (), fetch=True)[0]
        bounds = [Connections("max_connections", most, reserved, used)]
        if database >= 0:
            bounds.append(Connections("the database's CONNECTION LIMIT", database, 0, there))
        if role >= 0:
            bounds.append(Connections("the role's CONNECTION LIMIT", role, 0, ours))
    elif rows.dialect.name == "mysql":
        most, ours, open_ = map(int, rows.run(_MYSQL, (), fetch=True)[0])
        used = int(rows.run("SHOW GLOBAL STATUS LIKE 'Threads_connected'", (), fetch=True)[0][1])
        bounds = [Connections("max_connections", most, 0, used)]
        if ours:
            bounds.append(Connections("max_user_connections", ours, 0, open_))
    else:
        return None
    return min(bounds, key=lambda bound: bound.room - bound.used)


def look_for_room(storage: Storage, shortage: Shortage) -> None:
    """Note a *shortage*, and raise `TooManyConnectionsError`, if nearly no connection is left."""
    with storage.begin(atomic=False) as rows:
        found = read_connections(rows)
    if found is not None and found.scarce:
        shortage.note()
        text = f"{found.used} of {found.room} connections are open ({found.setting})"
        raise TooManyConnectionsError(f"{storage.describe()}: {text}", hint=ROOM)
