"""The settings of a Django project with one database and one app."""

from __future__ import annotations

from typing import Any

from benchmarks.contender import Database


def set_up_django(database: Database, app: str, **settings: Any) -> None:
    """Configure Django in this process, once."""
    import django
    from django.conf import settings as configured

    if configured.configured:
        return
    configured.configure(
        INSTALLED_APPS=[app],
        USE_TZ=True,
        SECRET_KEY="benchmark",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        # A worker keeps its connection; with Django's default each task would open another.
        DATABASES={"default": {**_connection(database), "CONN_MAX_AGE": None}},
        **settings,
    )
    django.setup()


def _connection(database: Database) -> dict[str, Any]:
    if database.kind == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": database.name,
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            },
        }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database.name,
        "USER": database.user,
        "PASSWORD": database.password,
        "HOST": database.host,
        "PORT": database.port,
    }
