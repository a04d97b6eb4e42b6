"""The encrypted table: what is in the database, and how its keys change."""

from __future__ import annotations

import logging
import os
import sqlite3
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel.base.errors import (
    ConfigError,
    SecretDeniedError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets import MemorySecretsBackend
from automate_testing import WritableSecretsBackendContract
from automate_secrets.key_ring import new_key, parse_key_ring
from automate_secrets.table import SecretTableBackend
from database_servers import fresh_database
from hypothesis import given
from hypothesis import strategies as st
from mortal_process import ends

OLD, NEW = new_key("2026"), new_key("2027")
Made = Callable[..., SecretTableBackend]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'app.sqlite3'}"
        return
    with fresh_database(request.getfixturevalue(f"{request.param}_server")) as url:
        yield url


@pytest.fixture
def table(url: str) -> Iterator[Made]:
    made: list[SecretTableBackend] = []

    def make(*keys: str) -> SecretTableBackend:
        ring = MemorySecretsBackend({"SECRET_TABLE_KEYS": " ".join(keys or (OLD,))})
        made.append(SecretTableBackend(url, keys=ring))
        made[-1].create()
        return made[-1]

    yield make
    for each in made:
        each.close()


class TestSecretTable(WritableSecretsBackendContract):
    @pytest.fixture
    def writable(self, table: Made) -> SecretTableBackend:
        return table()

    @pytest.fixture
    def broken(
        self, table: Made, url: str, tmp_path: Path, its: Any
    ) -> Iterator[dict[str, SecretTableBackend]]:
        table().set_secret(its.key, its.value)
        table().set_secret(its.missing_key, "a-value-of-its-own")
        none, nowhere = MemorySecretsBackend({}), f"sqlite:///{tmp_path / 'away' / 'x.sqlite3'}"
        ring = MemorySecretsBackend({"SECRET_TABLE_KEYS": OLD})
        empty = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
        kinds = {
            "no keys": SecretTableBackend(url, keys=none),
            "another key": SecretTableBackend(
                url, keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": NEW})
            ),
            "the id of another key": SecretTableBackend(
                url, keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": new_key("2026")})
            ),
            "keys that can't be read": SecretTableBackend(
                url, keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": "plain-text"})
            ),
            "no file of keys": SecretTableBackend(url, keys_file=tmp_path / "none"),
            "no folder": SecretTableBackend(nowhere, keys=ring),
            "no table": SecretTableBackend(empty, keys=ring),
        }
        yield kinds
        for each in kinds.values():
            each.close()


def test_a_commit_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    """A secret that was refused is not written by what comes next, and nobody is locked out."""
    file = tmp_path / "app.sqlite3"
    keys = MemorySecretsBackend({"SECRET_TABLE_KEYS": OLD})
    backend = SecretTableBackend(f"sqlite:///{file}", keys=keys)
    backend.create()
    dialect: Any = backend._engine.dialect
    commit = dialect.do_commit

    def fails(connection: Any) -> None:
        dialect.do_commit = commit
        raise sqlite3.OperationalError("disk is full")

    dialect.do_commit = fails
    with pytest.raises(SecretUnavailableError):
        backend.set_secret("A", "refused")
    with sqlite3.connect(file, timeout=0) as other:
        other.execute("DELETE FROM automate_secret")
    backend.set_secret("B", "accepted")
    with pytest.raises(SecretNotFoundError):
        backend.get_secret("A")
    with sqlite3.connect(file) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    backend.close()


def test_neither_values_nor_keys_are_in_the_database(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "app.sqlite3"
    backend = SecretTableBackend(
        f"sqlite:///{file}", keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": OLD})
    )
    backend.create()
    backend.set_secret("token", "canary-of-a-token")
    assert backend.get_secret("token") == "canary-of-a-token"
    content = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    key = OLD.partition(":")[2]
    assert b"canary" not in content
    assert key.encode() not in content
    shown = f"{caplog.text}{backend!r}{vars(backend)}{backend._ring()!r}{backend.records()}"
    assert "canary" not in shown
    assert key not in shown
    backend.close()


def test_a_failed_write_shows_no_value(tmp_path: Path) -> None:
    """Errors of databases have the statement's parameters in them."""
    value = "-".join(["canary", "of", "a", "token"])  # not in the source that a traceback shows
    backend = SecretTableBackend(
        f"sqlite:///{tmp_path / 'empty.sqlite3'}",
        keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": OLD}),
    )
    with pytest.raises(SecretUnavailableError, match="secret-table create") as caught:
        backend.set_secret("token", value)
    assert value not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SecretUnavailableError):
        backend.get_secret("token")
    backend.close()


def test_keys_are_rotated_without_a_pause(table: Made) -> None:
    old = table(OLD)
    for number in range(5):
        old.set_secret(f"token-{number}", f"value-of-{number}")
    both = table(NEW, OLD)
    both.set_secret("token-0", "a-newer-value")
    assert both.get_secret("token-1") == "value-of-1"
    assert both.rotate() == 4
    assert both.rotate() == 0
    new = table(NEW)
    assert new.get_secret("token-0") == "a-newer-value"
    assert [new.get_secret(f"token-{number}") for number in range(1, 5)] == [
        f"value-of-{number}" for number in range(1, 5)
    ]
    assert {each.key_id for each in new.records()} == {"2027"}
    with pytest.raises(SecretDeniedError, match="'2027'"):
        old.get_secret("token-1")


def test_a_write_during_the_rotation_is_not_undone(table: Made) -> None:
    table(OLD).set_secret("token", "old-value")
    both = table(NEW, OLD)
    (seen,) = both.records()
    both.set_secret("token", "new-value")
    assert both._rotate_one(seen, both._ring()) is False
    assert both.get_secret("token") == "new-value"


@pytest.mark.parametrize("writes", [1, 1_000])
def test_a_process_that_has_only_the_old_key_leaves_no_secret_behind(
    table: Made, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """It would be lost once the old key is taken away: rotate finds it, or says so."""
    old, both = table(OLD), table(NEW, OLD)
    old.set_secret("a", "value-of-a")
    rotate_one, left = both._rotate_one, iter(range(writes))

    def meanwhile(*args: Any) -> bool:
        if (number := next(left, None)) is not None:
            old.set_secret(f"late-{number}", "value-of-late")
        return rotate_one(*args)

    monkeypatch.setattr(both, "_rotate_one", meanwhile)
    if writes == 1:
        assert both.rotate() == 2
        assert table(NEW).get_secret("late-0") == "value-of-late"
    else:
        with pytest.raises(SecretError, match="with another key than '2027'.*restart"):
            both.rotate()


def test_a_row_under_another_name_does_not_decrypt(table: Made, url: str) -> None:
    """Whoever can write to the database can't give an action the secret of another."""
    backend = table()
    backend.set_secret("mine", "value-of-mine")
    backend.set_secret("yours", "value-of-yours")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        sealed = connection.execute(
            sa.text("SELECT sealed FROM automate_secret WHERE name = 'yours'")
        ).scalar()
        connection.execute(
            sa.text("UPDATE automate_secret SET sealed = :sealed WHERE name = 'mine'"),
            {"sealed": sealed},
        )
    engine.dispose()
    with pytest.raises(SecretError, match="changed outside") as caught:
        backend.get_secret("mine")
    assert not isinstance(caught.value, SecretNotFoundError)


def test_writers_of_one_name_all_get_through(table: Made) -> None:
    backend = table()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: backend.set_secret("same", f"value-{number}"), range(24)))
    (record,) = backend.records()
    assert record.version == 24


@pytest.mark.parametrize(
    ("name", "value"),
    [("token", ""), ("token", "ab" * 32_769), ("n" * 513, "v"), ("", "v"), ("token", "half\ud800")],
    ids=["empty", "long", "long-name", "no-name", "half-a-pair"],
)
def test_what_does_not_fit_is_refused(table: Made, name: str, value: str) -> None:
    backend = table()
    with pytest.raises(SecretError, match="can't be kept") as caught:
        backend.set_secret(name, value)
    assert caught.value.__context__ is None  # an error of Python's would hold the value
    assert backend.records() == []
    backend.set_secret("n" * 512, "v" * 65_536)
    assert backend.get_secret("n" * 512) == "v" * 65_536


def test_names_differ_by_case(table: Made) -> None:
    backend = table()
    backend.set_secret("token", "small-value")
    backend.set_secret("TOKEN", "large-value")
    assert backend.get_secret("token") == "small-value"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("", "no key"),
        ("plain-text", "number 1 can't be read"),
        (f"{OLD} {OLD}", "number 2"),
        ("id:c2hvcnQ=", "number 1"),
        *[(f"id:{b64encode(b'k' * size).decode()}", "number 1") for size in (16, 24, 31, 33)],
    ],
    ids=[
        "none",
        "text",
        "twice",
        "short",
        "of-16",
        "of-24",
        "of-31",
        "of-33",
    ],  # a key is another one in each process
)
def test_keys_that_can_not_be_read_are_not_shown(keys: str, problem: str) -> None:
    with pytest.raises(SecretError, match=problem) as caught:
        parse_key_ring(keys)
    assert not keys or keys not in str(caught.value)
    assert not isinstance(caught.value, SecretNotFoundError)


def test_without_keys_nothing_seems_to_be_missing(table: Made, url: str, tmp_path: Path) -> None:
    table().set_secret("token", "value-of-token")
    without = SecretTableBackend(url, keys=MemorySecretsBackend({}))
    with pytest.raises(SecretError, match="SECRET_TABLE_KEYS") as caught:
        without.get_secret("token")
    assert not isinstance(caught.value, SecretNotFoundError)
    file = tmp_path / "keys"
    of_file = SecretTableBackend(url, keys_file=file)
    with pytest.raises(SecretUnavailableError):
        of_file.get_secret("token")
    file.write_text(f"{NEW}\n{OLD}\n")
    assert of_file.get_secret("token") == "value-of-token"
    without.close()
    of_file.close()


@pytest.mark.parametrize("sealed", ["'a text'", "x''", "x'0102'"])
def test_a_row_that_was_broken_outside_stops_no_rotation_of_others(
    tmp_path: Path, sealed: str
) -> None:
    """Whoever can write to the database keeps no old key alive that way."""
    url = f"sqlite:///{tmp_path / 'app.sqlite3'}"
    keys = MemorySecretsBackend({"SECRET_TABLE_KEYS": OLD})
    backend = SecretTableBackend(url, keys=keys)
    backend.create()
    for name in ("a", "b", "c"):
        backend.set_secret(name, f"value-of-{name}")
    with sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql(f"UPDATE automate_secret SET sealed = {sealed} WHERE name = 'a'")  # noqa: S608
    with pytest.raises(SecretError, match="'a' was changed outside"):
        backend.get_secret("a")
    both = SecretTableBackend(url, keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": f"{NEW} {OLD}"}))
    with pytest.raises(SecretError, match="'a' was changed outside"):
        both.rotate()
    new = SecretTableBackend(url, keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": NEW}))
    assert [new.get_secret(name) for name in ("b", "c")] == ["value-of-b", "value-of-c"]
    for each in (backend, both, new):
        each.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_process_has_connections_of_its_own(postgresql_server: str) -> None:
    def connection_of(backend: SecretTableBackend) -> int:
        with backend._engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    with fresh_database(postgresql_server) as url:
        backend = SecretTableBackend(url, keys=MemorySecretsBackend({"SECRET_TABLE_KEYS": OLD}))
        backend.create()
        backend.set_secret("app", "value-of-app")
        parents = connection_of(backend)

        def use() -> None:
            assert connection_of(backend) != parents
            assert backend.get_secret("app") == "value-of-app"

        assert ends(use)
        assert connection_of(backend) == parents
        backend.close()


def test_keys_in_the_config_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="keys_file") as caught:
        SecretTableBackend("sqlite://", keys=OLD)  # type: ignore[arg-type]
    assert OLD[5:] not in str(caught.value)


def test_a_wrong_url_shows_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        SecretTableBackend("nosuch://user:canary@host/db")
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="one of url and engine"):
        SecretTableBackend()


@given(st.text(min_size=1, max_size=50), st.text(min_size=1, max_size=500))
def test_what_is_encrypted_is_decrypted(name: str, value: str) -> None:
    ring = parse_key_ring(f"{NEW} {OLD}")
    sealed = ring.encrypt(name, value)
    assert ring.decrypt(name, "2027", sealed) == value
    assert sealed != ring.encrypt(name, value)
    with pytest.raises(SecretError):
        ring.decrypt(f"{name}x", "2027", sealed)
    with pytest.raises(SecretError):
        ring.decrypt(name, "2026", sealed)
    with pytest.raises(SecretError):
        ring.decrypt(name, "2027", sealed[:-1])
