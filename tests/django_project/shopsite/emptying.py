"""What tests leave in the tables goes, without a statement for each table that is empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tables_emptied
from django.apps import apps
from django.db import connections, transaction

FILLED_BY_MIGRATE = {"auth_permission", "django_content_type"}


def _tables(*labels: str) -> list[str]:
    models: list[Any] = []
    for label in labels:
        models += apps.get_app_config(label).get_models(include_auto_created=True)
    return [
        model._meta.db_table
        for model in models
        if not model._meta.proxy and model._meta.db_table not in FILLED_BY_MIGRATE
    ]


# Once, at the start: tests define models that have no table.
OUTBOX = _tables("automate_django", "shop")
ROWS = _tables("backoffice", "service", "auth", "admin")


def delete_rows(alias: str, tables: Sequence[str]) -> None:
    """Delete what is in *tables*, in any order: no row of another table may point there."""
    connection = connections[alias]
    with (
        connection.constraint_checks_disabled(),
        transaction.atomic(using=alias),
        connection.cursor() as cursor,
    ):

        def read(query: str) -> Sequence[Any]:
            cursor.execute(query)
            return cursor.fetchall()

        tables_emptied.empty(tables, read, cursor.execute)
