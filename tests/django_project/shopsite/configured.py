"""Configures Django for a test run: once in a process, whichever test comes first."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import django
from django.core import mail
from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created

from . import settings as project


def configure() -> None:
    """Make this process one of the project, with an SQLite file of its own."""
    if settings.configured:
        return
    directory = tempfile.mkdtemp(prefix="shopsite-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    values = {name: getattr(project, name) for name in dir(project) if name.isupper()}
    default = {**project.DATABASES["default"], "NAME": str(Path(directory) / "shop.sqlite3")}
    values["DATABASES"] = {"default": default}
    values["DATABASE_ROUTERS"] = ["shopsite.routing.TestedDatabase"]
    settings.configure(**values)
    django.setup()
    # As Django's test runner does: connections for notices are then let go of at once.
    mail.outbox = []
    connection_created.connect(_without_fsync)


def _without_fsync(sender: Any, connection: Any, **_: Any) -> None:
    """Spare the disk: what this process commits need not outlive the machine."""
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA synchronous = OFF")


def add_database(alias: str, url: str) -> None:
    """Give this process another database."""
    known = {name: dict(connections.settings[name]) for name in connections}
    entry = project.mariadb if url.startswith("mysql") else project.postgresql
    known[alias] = entry(url)
    filled = connections.configure_settings(known)
    connections.settings[alias] = filled[alias]
