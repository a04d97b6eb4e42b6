"""Tables that lack something are found and completed, on every database, with rows in them."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, StorageError
from automate_kernel.outbox import RowsOutboxStore
from automate_kernel.storage import tables
from automate_kernel.storage.tables import TABLES
from automate_sqlalchemy import SqlAlchemyStorage, metadata

LACKING = """
ALTER TABLE automate_worker DROP COLUMN problem;
ALTER TABLE automate_execution DROP COLUMN labels;
DROP TABLE automate_budget;
DROP TABLE automate_failure;
DROP INDEX automate_activity_at{activity};
DROP INDEX automate_execution_parent{execution};
ALTER TABLE automate_execution DROP COLUMN parent_id
"""
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
INSERT INTO automate_step (id, execution_id, step_id, position, status, attempts, failures, error_code)
VALUES ('{STEP}', '{EXECUTION}', 'a', -1, 'FAILED', 3, 3, 'ERROR');
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
def lacking(engine):
    """A storage on tables with rows in them that lack columns, tables and indexes."""
    SqlAlchemyStorage(engine).create_tables()
    run(engine, DATA)
    on = engine.dialect.name in ("mysql", "mariadb")
    names = {"activity": "automate_activity", "execution": "automate_execution"}
    run(engine, LACKING.format(**{key: f" ON {name}" if on else "" for key, name in names.items()}))
    return SqlAlchemyStorage(engine)


def test_what_is_missing_is_added(lacking):
    """Every row is kept, and the kernel works with what was stored."""
    report = lacking.check_schema()
    assert report.needed
    assert lacking.migrate() == list(report.statements)
    after = lacking.check_schema()
    assert (after.ok, after.manager) == (True, "automate")
    assert lacking.migrate() == []
    kernel = Kernel(lacking, secrets={}, discover=False)
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
    assert kernel.executions.get(execution.id).status == "COMPLETED"


def test_by_hand(lacking):
    """The statements that are shown do what `migrate` does."""
    run(lacking.engine, ";\n".join(lacking.check_schema().statements))
    assert lacking.check_schema().ok
    assert lacking.migrate() == []


def test_a_new_database_has_what_sqlalchemy_makes(engine):
    """So a host may migrate by itself, or have Alembic do it."""
    storage = SqlAlchemyStorage(engine)
    assert storage.check_schema().empty
    storage.create_tables()
    report = storage.check_schema()
    assert report.ok
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


def test_an_index_of_the_applications_own_stays(engine):
    """Whatever its name is."""
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    run(engine, "CREATE INDEX automate_outbox_mine ON automate_outbox (kind, status)")
    assert storage.check_schema().ok
    assert storage.migrate() == []
    found = {index["name"] for index in sa.inspect(engine).get_indexes("automate_outbox")}
    assert "automate_outbox_mine" in found


def test_a_statement_that_fails_leaves_nothing_behind(lacking, monkeypatch):
    """Where a database can undo what changes tables; MariaDB goes on where it stopped."""
    before = lacking.check_schema().differences
    table = TABLES[tables.POLL]
    bad = tables.Column("level", "int", default="nowhere(1)")
    broken = tables.Table(table.name, (*table.columns, bad), table.indexes)
    with monkeypatch.context() as patched:
        patched.setitem(TABLES, tables.POLL, broken)
        with pytest.raises(StorageError):
            lacking.migrate()
    after = lacking.check_schema().differences
    if lacking.engine.dialect.name in ("mysql", "mariadb"):
        assert len(after) < len(before)
    else:
        assert after == before
    lacking.migrate()
    assert lacking.check_schema().ok


def test_two_that_migrate_at_once(lacking):
    """One finds nothing to do, and neither fails."""
    done, begin = [], threading.Barrier(2)

    def migrate():
        begin.wait()
        done.append(lacking.migrate())

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    with ExitStack() as ends:
        for thread in threads:
            thread.start()
            ends.callback(thread.join)
    assert sorted(map(bool, done)) == [False, True]
    assert lacking.check_schema().ok


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


def test_a_column_of_another_type_is_for_a_person(engine):
    """No statement of ours changes it; SQLite holds texts of any length, whatever it was tlacking."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no lengths")
    metadata.create_all(engine)
    name = "TYPE VARCHAR(10)" if engine.dialect.name == "postgresql" else None
    change = f"ALTER COLUMN workflow {name}" if name else "MODIFY workflow VARCHAR(10) NOT NULL"
    run(engine, f"ALTER TABLE automate_execution {change}")
    storage = SqlAlchemyStorage(engine)
    (difference,) = storage.check_schema().differences
    assert (difference.needed, difference.statements) == (True, ())
    assert "automate_execution.workflow" in difference.text
    with pytest.raises(AutomateError, match="automate_execution.workflow") as caught:
        storage.migrate()
    assert "by hand" in caught.value.hint


@pytest.mark.parametrize("manager", ["django", "alembic"])
def test_whoever_keeps_account_of_the_tables_has_to_change_them(lacking, manager):
    """Else its next migration would fail on a column that is there already."""
    if manager == "django":
        run(lacking.engine, "CREATE TABLE django_migrations (app VARCHAR(50))")
        run(lacking.engine, "INSERT INTO django_migrations VALUES ('automate_django')")
    else:
        run(lacking.engine, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    remedy = lacking.check_schema().remedy
    assert ("manage.py migrate" if manager == "django" else "--autogenerate") in remedy
    with pytest.raises(AutomateError) as caught:
        lacking.migrate()
    assert caught.value.hint == remedy
    if manager == "alembic":
        lacking.migrate(force=True)
        assert lacking.check_schema().ok
    else:
        with pytest.raises(AutomateError):
            lacking.migrate(force=True)
