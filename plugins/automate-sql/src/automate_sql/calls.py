"""
The table of calls: it remembers the calls that wrote, in the transaction in which they wrote.

A worker may die after the database has committed and before the step is saved. Then the step is
called again, and finds its first result here.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import sqlalchemy as sa

from automate_kernel import Call

CREATE_TABLE = """\
CREATE TABLE automate_calls (
  call_key VARCHAR(255) PRIMARY KEY,
  result TEXT,
  called_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
)"""
"""The table, as an application's migrations make it."""

# What any collation keeps apart: MariaDB's and MySQL's usual ones take capitals and accents for
# nothing, and would give one call the result of another.
_AS_IT_IS = re.compile(r"[!-@\[-~](?:[ -@\[-~]{0,253}[!-@\[-~])?")


class CallsTable:
    """The table *name*, and the call *key* in it."""

    def __init__(self, name: str, key: str) -> None:
        schema, _, table = name.rpartition(".")
        columns = (sa.column("call_key", sa.String), sa.column("result", sa.Text))
        self._table = sa.table(table, *columns, schema=schema or None)
        self._key = key if _AS_IT_IS.fullmatch(key) else _hashed(key)

    @classmethod
    def of(cls, name: str, call: Call) -> CallsTable | None:
        """Return the *call* in the table *name*, or None if it has no key."""
        return None if call.idempotency_key is None else cls(name, call.idempotency_key)

    def begin(self, connection: sa.Connection) -> bool:
        """
        Note the call; return False if it was made before.

        While another transaction makes the same call this waits for its end.
        """
        try:
            connection.execute(self._table.insert().values(call_key=self._key))
        except sa.exc.IntegrityError:
            return False
        return True

    def end(self, connection: sa.Connection, result: Any) -> None:
        """Keep the *result* of the call, a JSON value."""
        where = self._table.c.call_key == self._key
        text = json.dumps(result, ensure_ascii=False)
        connection.execute(self._table.update().where(where).values(result=text))

    def result(self, connection: sa.Connection) -> Any:
        """Return the result of the call when it was made before."""
        where = self._table.c.call_key == self._key
        found = connection.execute(sa.select(self._table.c.result).where(where)).scalar_one()
        return json.loads(found)


def _hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
