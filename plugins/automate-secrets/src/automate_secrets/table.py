"""The backend that keeps secrets in an encrypted table of an application's database."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from automate_kernel.base.errors import (
    ConfigError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
    StorageError,
)
from automate_kernel.base.forks import renew_in_children
from automate_kernel.secrets import (
    EnvSecretsBackend,
    LeaseLock,
    LockState,
    SecretsBackend,
    WritableSecretsBackend,
)

try:
    import sqlalchemy as sa
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    from automate_secrets.key_ring import KeyRing, parse_key_ring
    from automate_sqlalchemy.engines import fork_gate, make_engine, renew
except ImportError as missing:
    raise ImportError(
        "the encrypted table needs SQLAlchemy and cryptography: "
        "pip install 'automate-secrets[table]'",
        name=missing.name,
    ) from missing


_MOST_BYTES, _LONGEST_NAME, _MOST_ROUNDS = 65_536, 512, 5
_KEYS = "SECRET_TABLE_KEYS"

metadata = sa.MetaData()
"""The tables, for Alembic."""

# The names are compared by their digests: some databases take A and a for the same.
_id = sa.String(64)
_secrets = sa.Table(
    "automate_secret",
    metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("name", sa.String(_LONGEST_NAME), nullable=False),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("sealed", sa.LargeBinary(_MOST_BYTES + 64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)
_locks = sa.Table(
    "automate_secret_lock",
    metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A secret of the table, without its value."""

    name: str
    key_id: str
    version: int
    """1 at first; each write adds one."""
    updated_at: datetime


class SecretTableBackend(WritableSecretsBackend):
    """
    Secrets in the table ``automate_secret`` of the database at *url*, encrypted by AES-256-GCM.

    The keys are ``ID:BASE64``, with spaces between: the first encrypts, all decrypt. They are the
    secret ``SECRET_TABLE_KEYS`` of another backend, *keys*; by default the variable
    ``AUTOMATE_SECRET_SECRET_TABLE_KEYS``. Or they are in a *keys_file*. They are read at each
    look-up, so a new one counts at once.

    *url* is one of SQLAlchemy's; *engine* takes its place. A database of Django's works too.
    """

    name = "secret_table"

    def __init__(
        self,
        url: str | None = None,
        *,
        keys: SecretsBackend | None = None,
        keys_file: str | os.PathLike[str] | None = None,
        engine: sa.Engine | None = None,
    ) -> None:
        if (url is None) == (engine is None) or (keys is not None and keys_file is not None):
            raise ConfigError("a secret table has one of url and engine, and one source of keys")
        if keys is not None and not isinstance(keys, SecretsBackend):
            # Not shown: it may be the keys themselves.
            raise ConfigError(
                "the keys of a secret table are no part of its config: keys is a secrets backend",
                hint=f"put them into a keys_file, or into the secret {_KEYS!r}",
            )
        self._owns_engine = engine is None
        self._engine = engine if engine is not None else _engine(str(url))
        self._keys = keys if keys is not None else EnvSecretsBackend()
        self._keys_file = Path(keys_file) if keys_file is not None else None
        if self._owns_engine:
            renew_in_children(self)
        self._gate = fork_gate(self._engine)

    def renew(self) -> None:
        """Have the engine open connections of this process's own, and leave the others open."""
        renew(self._engine)

    def get_secret(self, key: str) -> str:
        """Read and decrypt the row."""
        which = sa.select(_secrets.c.key_id, _secrets.c.sealed).where(_secrets.c.id == _digest(key))
        try:
            with self._connected() as connection:
                row = connection.execute(which).first()
            if row is None:
                raise SecretNotFoundError(key)
            sealed = bytes(row.sealed)
        except TypeError:  # SQLite takes a text into a column of bytes
            raise SecretError(
                f"secret {key[:80]!r} was changed outside", hint="set the secret again"
            ) from None
        return self._ring().decrypt(key, row.key_id, sealed)

    def set_secret(self, key: str, value: str) -> None:
        """Encrypt the value with the first key, and write the row."""
        if not _fits(key, value):
            raise SecretError(
                f"the value of secret {key[:80]!r} can't be kept in the table",
                hint=f"it has 1 to {_MOST_BYTES} bytes, its name 1 to {_LONGEST_NAME} characters",
            )
        ring = self._ring()
        row = _row(key, ring, value)
        change = (
            sa.update(_secrets)
            .where(_secrets.c.id == _digest(key))
            .values(**row, version=_secrets.c.version + 1)
        )
        new = sa.insert(_secrets).values(id=_digest(key), name=key, version=1, **row)
        self._changed_or_inserted(change, new)

    def delete_secret(self, key: str) -> None:
        """Remove the row."""
        with self._connected() as connection:
            connection.execute(sa.delete(_secrets).where(_secrets.c.id == _digest(key)))

    def locked(self, key: str) -> AbstractContextManager[None]:
        """Hold a lock, a row of its own; that of a process which died is free after 20 s."""
        return LeaseLock(_LockRow(self, _digest(key)), key).held()

    def remedy(self, key: str) -> str:
        """Give the command that sets it."""
        return f"automate secret-table set {shlex.quote(key)}"

    def close(self) -> None:
        """Close the connections that it has opened."""
        if self._owns_engine:
            self._engine.dispose()

    # -- for operators -----------------------------------------------------------------------

    def create(self) -> None:
        """Make the tables, if they aren't there."""
        with self._connected() as connection:
            metadata.create_all(connection)

    def records(self) -> list[SecretRecord]:
        """Return all secrets by name, without their values."""
        columns = (_secrets.c.name, _secrets.c.key_id, _secrets.c.version, _secrets.c.updated_at)
        with self._connected() as connection:
            rows = connection.execute(sa.select(*columns).order_by(_secrets.c.name)).all()
        return [
            SecretRecord(name, key_id, version, updated_at.replace(tzinfo=timezone.utc))
            for name, key_id, version, updated_at in rows
        ]

    def rotate(self) -> int:
        """
        Encrypt with the first key what another key has encrypted, and return how many there were.

        Readers and writers go on meanwhile. Afterwards the other keys can be taken away. A secret
        that can't be read stops no other one: its error is raised at the end, as is one if a
        process that doesn't know the first key goes on writing with another.
        """
        ring, count = self._ring(), 0
        for _ in range(_MOST_ROUNDS):
            behind = [each for each in self.records() if each.key_id != ring.primary]
            if not behind:
                return count
            problem = None
            for record in behind:
                try:
                    count += self._rotate_one(record, ring)
                except SecretUnavailableError:
                    raise
                except SecretError as error:
                    problem = problem or error
            if problem is not None:
                raise problem
        raise SecretError(
            f"secrets are written with another key than {ring.primary!r} while they are rotated",
            hint="give all processes the new key, restart those that have it in a variable, and"
            " rotate again",
        )

    def _rotate_one(self, record: SecretRecord, ring: KeyRing) -> bool:
        """Return False if it was written or removed meanwhile."""
        try:
            row = _row(record.name, ring, self.get_secret(record.name))
        except SecretNotFoundError:
            return False
        with self._connected() as connection:
            done = connection.execute(
                sa.update(_secrets)
                .where(_secrets.c.id == _digest(record.name))
                .where(_secrets.c.version == record.version)
                .values(**row, version=record.version + 1)
            )
        return done.rowcount == 1

    # -- the database ------------------------------------------------------------------------

    def _ring(self) -> KeyRing:
        if self._keys_file is None:
            text = self._of_other_backend()
        else:
            try:
                text = self._keys_file.read_text("ascii")
            except (OSError, ValueError) as error:
                reason = type(error).__name__
                raise SecretUnavailableError(f"the table's keys can't be read: {reason}") from None
        return parse_key_ring(text)

    def _of_other_backend(self) -> str:
        try:
            return self._keys.get_secret(_KEYS)
        except SecretNotFoundError:
            hint = self._keys.remedy(_KEYS)
        # Another error: there may well be a secret, which nobody can read without a key.
        raise SecretError(f"the table's keys, the secret {_KEYS!r}, are not there", hint=hint)

    def _changed_or_inserted(self, change: sa.Update, new: sa.Insert) -> None:
        for _ in range(3):
            with self._connected() as connection:
                if connection.execute(change).rowcount:
                    return
            try:
                with self._connected() as connection:
                    connection.execute(new)
                return
            except IntegrityError:
                continue  # somebody else has inserted it meanwhile
        raise SecretUnavailableError("a secret was written and removed by others meanwhile")

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            with self._gate(), self._engine.begin() as connection:
                yield connection
            return
        except IntegrityError:
            raise
        except (SQLAlchemyError, StorageError) as error:
            # Its text has the statement's parameters.
            reason = type(error).__name__
        raise SecretUnavailableError(
            f"the secret table can't be used: {reason}",
            hint="does it exist? automate secret-table create makes it",
        )


class _LockRow:
    """The entry of a lock, a row."""

    def __init__(self, backend: SecretTableBackend, lock_id: str) -> None:
        self._connected, self._id = backend._connected, lock_id  # noqa: SLF001 - the same module

    def read(self) -> LockState:
        """Return the row's state."""
        wanted = sa.select(_locks.c.version, _locks.c.holder).where(_locks.c.id == self._id)
        with self._connected() as connection:
            row = connection.execute(wanted).first()
        return LockState(row.version, row.holder) if row is not None else LockState(0, "")

    def write(self, holder: str, version: int) -> int | None:
        """Write the row if it has still *version*."""
        new = {"holder": holder, "version": version + 1}
        change: sa.Insert | sa.Update = sa.insert(_locks).values(id=self._id, **new)
        if version:
            own = (_locks.c.id == self._id) & (_locks.c.version == version)
            change = sa.update(_locks).where(own).values(**new)
        try:
            with self._connected() as connection:
                done = connection.execute(change)
                # Some drivers report no number of rows for an INSERT.
                return version + 1 if not version or done.rowcount == 1 else None
        except IntegrityError:
            return None


def _row(name: str, ring: KeyRing, value: str) -> dict[str, object]:
    now = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
    return {"key_id": ring.primary, "sealed": ring.encrypt(name, value), "updated_at": now}


def _fits(name: str, value: str) -> bool:
    try:
        return (
            bool(name.encode())
            and len(name) <= _LONGEST_NAME
            and 0 < len(value.encode()) <= _MOST_BYTES
        )
    except UnicodeEncodeError:  # half a surrogate pair; the error has the value
        return False


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _engine(url: str) -> sa.Engine:
    try:
        # Without parameters in its errors and logs: the rows are in them.
        return make_engine(sa.make_url(url), pool_pre_ping=True, hide_parameters=True)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = type(error).__name__
    # The text is not shown: a password may stand in it.
    raise ConfigError(f"the url of the secret table can't be used: {reason}")
