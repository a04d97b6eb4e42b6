"""The contenders, one module each."""

from __future__ import annotations

from importlib import import_module

from benchmarks.contender import Contender

__all__ = ["NAMES", "load"]

_MODULES = {
    "ours": "ours_sqlalchemy",
    "ours-django": "ours_django",
    "limit": "limit_postgresql",
    "limit-sqlite": "limit_sqlite",
    "pgqueuer": "pgqueuer",
    "chancy": "chancy",
    "dbos": "dbos",
    "absurd": "absurd",
    "procrastinate": "procrastinate",
    "django-tasks-db": "django_tasks_db",
    "huey": "huey",
}
NAMES = tuple(_MODULES)


def load(name: str) -> type[Contender]:
    """The class of the contender *name*."""
    module = import_module(f"benchmarks.contenders.{_MODULES[name]}")
    found: type[Contender] = module.CONTENDER
    return found
