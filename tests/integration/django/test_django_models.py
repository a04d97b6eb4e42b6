"""The models are the kernel's tables, and the migration makes them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from automate_django import models
from automate_django.models.tables import KernelTable
from automate_kernel.storage.tables import NULL
from automate_kernel.storage import TABLES, Table
from automate_sqlalchemy import metadata
from django.apps import apps
from django.core.management import call_command
from django.db.models import CharField, ForeignKey, Index, UniqueConstraint

TYPES = {
    "UUIDField": "id",
    "CharField": "text",
    "TextField": "longtext",
    "JSONField": "json",
    "IntegerField": "int",
    "DateTimeField": "time",
}


def model_of(table: Table) -> Any:
    """The Django model of a table."""
    return next(
        model
        for model in apps.get_app_config("automate_django").get_models()
        if model._meta.db_table == table.name
    )


def columns_of(model: Any) -> set[tuple[Any, ...]]:
    """Name, type, length and nullness of each column."""
    found = set()
    for field in model._meta.local_fields:
        stored = field.target_field if isinstance(field, ForeignKey) else field
        length = stored.max_length if isinstance(stored, CharField) else 0
        found.add((field.column, TYPES[type(stored).__name__], length or 0, field.null))
    return found


_NULLNESS = {False: None, True: NULL}


def condition_of(index: Index) -> frozenset[tuple[str, Any]]:
    """A partial index's condition as the kernel writes it."""
    pairs = index.condition.children if index.condition else ()
    return frozenset(
        (name.removesuffix("__isnull"), _NULLNESS[value] if name.endswith("__isnull") else value)
        for name, value in pairs
    )


def columns_named(model: Any, names: Any) -> tuple[str, ...]:
    """The columns of the fields *names*."""
    return tuple(model._meta.get_field(name).column for name in names)


def rows_of(constraint: UniqueConstraint) -> frozenset[tuple[str, Any]]:
    """Which rows a unique constraint is about."""
    partial = isinstance(constraint, models.UniqueIfSet)
    return frozenset((name, None) for name in constraint.fields if partial)


def indexes_of(model: Any) -> set[tuple[Any, ...]]:
    """Columns, uniqueness and condition of each index."""
    meta = model._meta
    plain = {
        (columns_named(model, index.fields), False, condition_of(index)) for index in meta.indexes
    }
    unique = {
        (columns_named(model, each.fields), True, rows_of(each))
        for each in meta.constraints
        if isinstance(each, UniqueConstraint)
    }
    return plain | unique


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_models_have_the_kernels_columns_and_indexes(table: Table) -> None:
    """A column or index that is added to the kernel's tables must be added to the models."""
    model = model_of(table)
    assert columns_of(model) == {(c.name, c.type, c.length, c.null) for c in table.columns}
    assert model._meta.pk.column == table.key
    assert indexes_of(model) == {
        (index.columns, index.unique, frozenset(index.where)) for index in table.indexes
    }


def test_every_table_has_its_model() -> None:
    """No model without a table, and the other way round; all of them are exported."""
    found = list(apps.get_app_config("automate_django").get_models())
    kernel = {model for model in found if issubclass(model, KernelTable)}
    assert {model._meta.db_table for model in kernel} == set(TABLES) == set(metadata.tables)
    assert {model.__name__ for model in found} == set(models.__all__) - {
        "PartialIndex",
        "UniqueIfSet",
    }
    assert [model for model in found if model._meta.proxy] == [models.Pages]


def test_migrations_are_complete(sqlite: str) -> None:
    """``makemigrations`` would have nothing to add to our app; tests add proxies to others."""
    call_command("makemigrations", "automate_django", "--check", "--dry-run", verbosity=0)


def columns_in(inspector: Any, table: str) -> set[tuple[str, str, bool]]:
    """What PostgreSQL says of a table's columns."""
    return {
        (column["name"], str(column["type"]), column["nullable"])
        for column in inspector.get_columns(table)
    }


def indexes_in(inspector: Any, table: str) -> set[tuple[Any, ...]]:
    """What PostgreSQL says of a table's indexes, but for their names."""
    return {
        (
            tuple(index["column_names"]),
            index["unique"],
            index["dialect_options"].get("postgresql_where"),
        )
        for index in inspector.get_indexes(table)
        if not index["name"].endswith("_like")  # Django's own, for LIKE on a text key
    }


def test_migrations_make_what_sqlalchemy_makes(
    postgresql: str, postgresql_database_url: str
) -> None:
    """A Django project and a SQLAlchemy app can share one database."""
    url = postgresql_database_url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA other")
        connection.exec_driver_sql("SET search_path TO other")
        metadata.create_all(connection)
        migrated = sa.inspect(engine)
        for table in TABLES:
            ours = sa.inspect(connection)
            assert columns_in(migrated, table) == columns_in(ours, table)
            assert indexes_in(migrated, table) == indexes_in(ours, table)
        options = connection.exec_driver_sql(
            "SELECT DISTINCT reloptions FROM pg_class WHERE relname = 'automate_outbox'"
        )
        assert len(options.all()) == 1  # in both schemas
        connection.rollback()
    engine.dispose()


def test_names_show_no_payload(sqlite: str) -> None:
    """What names an object ends in logs and admin pages."""
    item = models.OutboxItem(id="0" * 32, kind="mail", payload={"password": "x"}, last_error="x")
    assert str(item) == f"mail {'0' * 32}"
