"""The encrypted table in the database of a Django project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from automate_secrets.key_ring import new_key
from database_servers import fresh_database

# In a process of its own: Django is set up once in a process.
PROJECT = """
import sys

import django
import sqlalchemy as sa
from django.conf import settings

url, keys_file = sys.argv[1:]
parts = sa.make_url(url)
engine = "sqlite3" if parts.get_backend_name() == "sqlite" else "postgresql"
settings.configure(
    SECRET_KEY="a-key-for-tests-alone",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "automate_django"],
    DATABASES={"default": {
        "ENGINE": f"django.db.backends.{engine}", "NAME": parts.database,
        "USER": parts.username or "", "PASSWORD": parts.password or "",
        "HOST": parts.host or parts.query.get("host", ""), "PORT": parts.port or "",
    }},
    USE_TZ=True,
    AUTOMATE_SECRETS=[
        {"BACKEND": "secret_table", "OPTIONS": {"url": url, "keys_file": keys_file}},
    ],
)
django.setup()
from automate_django import get_kernel
from automate_secrets.table import SecretTableBackend
from django.core.management import call_command
from django.db import connection, transaction

call_command("migrate", verbosity=0)
table = SecretTableBackend(url, keys_file=keys_file)
table.create()
table.set_secret("shop/api-key", "canary-of-a-key")
with transaction.atomic(), connection.cursor() as cursor:
    assert get_kernel().secrets.get("shop/api-key") == "canary-of-a-key"
    cursor.execute("SELECT name, sealed FROM automate_secret")
    ((name, sealed),) = cursor.fetchall()
assert name == "shop/api-key"
assert b"canary" not in bytes(sealed)
# Django makes no migration for the tables, and those that are run again leave them alone.
call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
call_command("migrate", verbosity=0)
assert get_kernel().secrets.get("shop/api-key") == "canary-of-a-key"
"""


def in_a_project(url: str, folder: Path) -> None:
    (folder / "keys").write_text(new_key("2026"))
    command = [sys.executable, "-c", PROJECT, url, str(folder / "keys")]
    subprocess.run(command, check=True, cwd=folder, timeout=120)


def test_a_projects_sqlite_file_has_the_table(tmp_path: Path) -> None:
    """Beside Django's own tables, through the URL of the same database."""
    in_a_project(f"sqlite:///{tmp_path / 'db.sqlite3'}", tmp_path)


def test_a_projects_postgresql_database_has_the_table(
    postgresql_server: str, tmp_path: Path
) -> None:
    with fresh_database(postgresql_server) as url:
        in_a_project(url, tmp_path)
