"""From the tables of the release before to this one's, on every database, with rows in them."""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, StorageError
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.storage import tables
from automate_kernel.storage.tables import TABLES, VERSION
from automate_sqlalchemy import SqlAlchemyStorage, metadata

BEFORE = "0.1.0"
SCHEMAS = Path(__file__).parent / "schemas"
ITEM, EXECUTION, STEP = (f"{number}" * 32 for number in (1, 2, 3))
DATA = f"""
INSERT INTO automate_outbox (id, kind, payload, headers, status, waiting_for, priority,
  attempt_count, max_attempts, next_attempt_at, sort_at, created_at, updated_at)
VALUES ('{ITEM}', 'mail', '{{"to": "a"}}', '{{}}', 'PENDING', 'worker', 0, 0, 5,
  '2025-01-01 00:00:00', '2025-01-01 00:00:00', '2025-01-01 00:00:00', '2025-01-01 00:00:00');
INSERT INTO automate_definition (id, name, body, created_at) VALUES ('d', 'w',
  '{{"name": "w", "trigger": {{"type": "manual"}}, "steps": [{{"id": "a", "action": "test.a"}}]}}', '2025-01-01 00:00:00');
INSERT INTO automate_execution (id, workflow, definition_id, status, event, item_id, error_code,
  error, created_at, updated_at, completed_at)
VALUES ('{EXECUTION}', 'w', 'd', 'FAILED', '{{"id": "e", "name": "n"}}', '{ITEM}', 'ERROR', 'bad',
  '2025-01-01 00:00:00', '2025-01-01 00:00:00', '2025-01-01 00:00:00');
INSERT INTO automate_step (id, execution_id, step_id, position, status, attempts, error_code)
VALUES ('{STEP}', '{EXECUTION}', 'a', -1, 'FAILED', 3, 'ERROR');
INSERT INTO automate_worker (id, host, pid, started_at, seen_at, kinds, slots, in_flight, stopping)
VALUES ('w', 'h', 1, '2025-01-01 00:00:00', '2025-01-01 00:00:00', '[]', 1, 0, 0)
"""


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def url(request, tmp_path, new_database):
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/a.sqlite3"
        return
    name = "postgresql_server" if request.param == "postgresql" else "mariadb_server"
    with new_database(request.getfixturevalue(name)) as made:
        yield made


@pytest.fixture
def engine(url):
    """An engine on it."""
    made = sa.create_engine(url)
    yield made
    made.dispose()


def run(engine, text):
    """Run statements that are written one after the other."""
    with engine.begin() as connection:
        for sql in text.split(";\n"):
            if sql.strip():
                connection.exec_driver_sql(sql.strip().rstrip(";"))


@pytest.fixture
def old(engine):
    """A storage on the tables of the release before, with rows in them."""
    name = "mysql" if engine.dialect.name in ("mysql", "mariadb") else engine.dialect.name
    run(engine, (SCHEMAS / f"{BEFORE}.{name}.sql").read_text())
    run(engine, DATA)
    return SqlAlchemyStorage(engine)


def nested(levels):
    """A list in a list, so many times."""
    return [nested(levels - 1)] if levels else []


def test_from_the_release_before(old):
    """Every row is kept, and the kernel works with what was stored."""
    report = old.check_schema()
    assert report.needed
    assert report.version is None
    assert old.migrate() == list(report.statements)
    after = old.check_schema()
    assert (after.ok, after.version, after.manager) == (True, VERSION, "automate")
    assert old.migrate() == []
    kernel = Kernel(old, secrets={}, discover=False)
    done, handled = [], []
    kernel.handler("mail")(lambda item: done.append(item.payload))
    kernel.action("test.a")(lambda: handled.append(1))
    (worker,) = kernel.outbox.workers()
    assert (worker.id, worker.problem) == ("w", None)
    execution = kernel.executions.find(status="FAILED")[0]
    assert (execution.error, execution.step("a").attempts) == ("bad", 3)
    assert kernel.executions.resume(execution.id)
    kernel.run_until_idle()
    assert (done, handled) == ([{"to": "a"}], [1])
    # The columns of the release before changed numbers, or refused what is nested this deep.
    for exact in ([1.0, 2**70], 1.0, nested(40)):
        item = kernel.outbox.get(kernel.outbox.enqueue("mail", exact))
        assert repr(item.payload) == repr(exact)
    assert kernel.executions.get(execution.id).status == "COMPLETED"


def test_by_hand(old):
    """The script that is shown does what `migrate` does."""
    run(old.engine, ";\n".join(old.check_schema().script))
    after = old.check_schema()
    assert (after.ok, after.version) == (True, VERSION)
    assert after.script == ()
    assert old.migrate() == []


def test_a_new_database_has_what_sqlalchemy_makes(engine):
    """So a host may migrate by itself, or have Alembic do it."""
    storage = SqlAlchemyStorage(engine)
    assert storage.check_schema().empty
    storage.create_tables()
    report = storage.check_schema()
    assert (report.ok, report.version) == (True, VERSION)
    with engine.connect() as connection:
        theirs = sa.inspect(connection)
        made = {name: _shape(theirs, name) for name in TABLES}
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with engine.connect() as connection:
        theirs = sa.inspect(connection)
        assert {name: _shape(theirs, name) for name in TABLES} == made
    assert storage.check_schema().ok


def _shape(inspector, table):
    columns = {
        (each["name"], str(each["type"]), each["nullable"]) for each in inspector.get_columns(table)
    }
    indexes = {
        (each["name"], tuple(each["column_names"]), bool(each["unique"]))
        for each in inspector.get_indexes(table)
    }
    return columns, indexes, tuple(inspector.get_pk_constraint(table)["constrained_columns"])


def test_what_is_missing_is_named_with_its_remedy(engine):
    """A table, a column, an index, and one that isn't unique any more."""
    metadata.create_all(engine)
    drop = "DROP INDEX {}" + (" ON {}" if engine.dialect.name in ("mysql", "mariadb") else "")
    run(engine, "ALTER TABLE automate_worker DROP COLUMN problem")
    run(engine, "DROP TABLE automate_schedule")
    run(engine, drop.format("automate_activity_at", "automate_activity"))
    run(engine, drop.format("automate_step_once", "automate_step"))
    run(
        engine, "CREATE INDEX automate_step_once ON automate_step (execution_id, step_id, position)"
    )
    storage = SqlAlchemyStorage(engine)
    report = storage.check_schema()
    assert [(each.kind, each.name, each.needed) for each in report.differences] == [
        ("index", "automate_step_once", True),
        ("table", "automate_schedule", True),
        ("column", "problem", True),
        ("index", "automate_activity_at", False),
    ]
    assert "automate db migrate" in report.remedy
    with pytest.raises(StorageError, match="automate_worker.problem is missing") as caught:
        report.require()
    assert not caught.value.retryable
    storage.migrate()
    assert storage.check_schema().ok


@pytest.mark.parametrize("columns", ["kind, id, sort_at", "kind, sort_at, id"])
def test_an_index_that_cant_be_used(url, engine, columns):
    """Another order of its columns, or a condition that the planner never finds (a cast)."""
    metadata.create_all(engine)
    storage = SqlAlchemyStorage(engine)
    if engine.dialect.name in ("mysql", "mariadb"):
        if columns == "kind, sort_at, id":
            return  # there are no conditions
        run(engine, "DROP INDEX automate_outbox_ready ON automate_outbox")
    else:
        run(engine, "DROP INDEX automate_outbox_ready")
    where = "tenant_id IS NULL AND waiting_for = 'worker'"
    if columns == "kind, sort_at, id" and engine.dialect.name == "postgresql":
        where = "tenant_id::text IS NULL AND waiting_for::text = 'worker'"
    elif columns == "kind, sort_at, id":
        where = "waiting_for = 'worker'"
    where = "" if engine.dialect.name in ("mysql", "mariadb") else f" WHERE {where}"
    run(engine, f"CREATE INDEX automate_outbox_ready ON automate_outbox ({columns}){where}")
    (difference,) = storage.check_schema().differences
    assert difference.name == "automate_outbox_ready"
    assert not difference.needed
    assert "automate_outbox_ready" in difference.text
    assert len(storage.migrate()) == 2
    assert storage.check_schema().ok


def test_an_index_of_an_earlier_release_goes(engine):
    """It costs each write; one of the application's own stays, and so does its unique one."""
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    with engine.begin() as connection:
        for text in (
            "CREATE INDEX automate_outbox_ordering ON automate_outbox (kind, status)",
            "CREATE INDEX automate_outbox_reports ON automate_outbox (kind, tenant_id)",
            "CREATE INDEX reports_by_kind ON automate_outbox (kind, status)",
            "CREATE UNIQUE INDEX automate_outbox_own ON automate_outbox (id, kind)",
        ):
            connection.exec_driver_sql(text)
    (left,) = storage.check_schema().differences
    assert (left.name, left.needed) == ("automate_outbox_ordering", False)
    storage.check_schema().require()
    (dropped,) = storage.migrate()
    assert "automate_outbox_ordering" in dropped
    assert storage.check_schema().ok
    found = {index["name"] for index in sa.inspect(engine).get_indexes("automate_outbox")}
    assert "automate_outbox_ordering" not in found
    assert {"reports_by_kind", "automate_outbox_own", "automate_outbox_reports"} <= found


def test_a_statement_that_fails_leaves_nothing_behind(old, monkeypatch):
    """Where a database can undo what changes tables; MariaDB goes on where it stopped."""
    from automate_kernel.storage import migration

    broken = migration.MigrationStep(VERSION, "broken", lambda dialect: ["SELECT x FROM nowhere"])
    with monkeypatch.context() as patched:
        patched.setattr(migration, "STEPS", (broken,))
        before = old.check_schema().differences
        with pytest.raises(StorageError, match="nowhere"):
            old.migrate()
        after = old.check_schema().differences
    if old.engine.dialect.name in ("mysql", "mariadb"):
        assert [each.name for each in after] == ["broken"]
    else:
        assert after == before
    old.migrate()
    assert old.check_schema().ok


def test_a_step_is_made_once(old, monkeypatch):
    """After what is missing was added; whoever has its version never sees it."""
    from automate_kernel.storage import migration

    sql = "UPDATE automate_worker SET problem = 'computed'"
    monkeypatch.setattr(
        migration, "STEPS", (migration.MigrationStep(VERSION, "fill", lambda _: [sql]),)
    )
    assert old.migrate()[-1] == sql
    (worker,) = RowsOutboxStore(old).workers()
    assert worker.problem == "computed"
    assert old.migrate() == []


def test_two_that_migrate_at_once(old):
    """One finds nothing to do, and neither fails."""
    done, begin = [], threading.Barrier(2)

    def migrate():
        begin.wait()
        done.append(old.migrate())

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    with ExitStack() as ends:
        for thread in threads:
            thread.start()
            ends.callback(thread.join)
    assert sorted(map(bool, done)) == [False, True]
    assert old.check_schema().ok


def test_a_column_with_a_default_is_added_to_rows(engine, monkeypatch):
    """And workers of the release before can go on writing rows without it."""
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    outbox = RowsOutboxStore(storage)
    outbox.pause("old")
    table = TABLES[tables.PAUSE]
    new = (
        tables.Column("level", "int", default="3"),
        tables.Column("labels", "json", default="'[]'"),
        tables.Column("label", "text", 20, default="''"),
    )
    wider = tables.Table(table.name, (*table.columns, *new), table.indexes)
    monkeypatch.setitem(TABLES, tables.PAUSE, wider)
    storage.migrate()
    run(engine, "INSERT INTO automate_outbox_pause (kind, created_at) VALUES ('new', '2025-01-01')")
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT kind, level FROM automate_outbox_pause").all()
    assert sorted(map(tuple, found)) == [("new", 3), ("old", 3)]
    assert storage.check_schema().ok


def test_a_column_without_a_default_is_refused(engine, monkeypatch):
    """At once and with a name, rather than by the database of whoever has rows."""
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    table = TABLES[tables.PAUSE]
    wider = tables.Table(table.name, (*table.columns, tables.Column("level", "int")))
    monkeypatch.setitem(TABLES, tables.PAUSE, wider)
    with pytest.raises(StorageError, match="automate_outbox_pause.level"):
        storage.migrate()


def test_a_text_that_is_too_short_is_widened(engine):
    """SQLite holds texts of any length, whatever it was told."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no lengths")
    metadata.create_all(engine)
    name = "TYPE VARCHAR(10)" if engine.dialect.name == "postgresql" else None
    change = f"ALTER COLUMN workflow {name}" if name else "MODIFY workflow VARCHAR(10) NOT NULL"
    run(engine, f"ALTER TABLE automate_execution {change}")
    storage = SqlAlchemyStorage(engine)
    (difference,) = storage.check_schema().differences
    assert "automate_execution.workflow" in difference.text
    storage.migrate()
    assert storage.check_schema().ok


def test_a_newer_database_is_left_alone(old):
    """An older program must not change what a newer one has migrated."""
    old.migrate()
    run(old.engine, "UPDATE automate_schema SET version = 99")
    with pytest.raises(AutomateError, match="version 99"):
        old.migrate()


@pytest.mark.parametrize("manager", ["django", "alembic"])
def test_whoever_keeps_account_of_the_tables_has_to_change_them(old, manager):
    """Else its next migration would fail on a column that is there already."""
    if manager == "django":
        run(old.engine, "CREATE TABLE django_migrations (app VARCHAR(50))")
        run(old.engine, "INSERT INTO django_migrations VALUES ('automate_django')")
    else:
        run(old.engine, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    remedy = old.check_schema().remedy
    assert ("manage.py migrate" if manager == "django" else "--autogenerate") in remedy
    with pytest.raises(AutomateError) as caught:
        old.migrate()
    assert caught.value.hint == remedy
    if manager == "alembic":
        old.migrate(force=True)
        assert old.check_schema().ok
    else:
        with pytest.raises(AutomateError):
            old.migrate(force=True)


def test_the_version_is_raised_with_the_tables():
    """Once in a release: the tables differ from those of the release before."""
    numbers = {"0.1.0": 1}
    text = (SCHEMAS / f"{BEFORE}.postgresql.sql").read_text()
    then = {
        name: {line.split()[0] for line in body.split("\n") if line.startswith("  ")}
        for name, body in re.findall(r"CREATE TABLE (\w+) \(\n(.*?)\n\)", text, re.DOTALL)
    }
    now = {name: {each.name for each in table.columns} for name, table in TABLES.items()}
    then = {name: columns - {"PRIMARY"} for name, columns in then.items()}
    assert (VERSION > numbers[BEFORE]) == (then != now)
