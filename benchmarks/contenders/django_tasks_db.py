"""django-tasks-db, the database backend of Django's tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.contender import BATCH, Contender, Filling, Purpose, payload
from benchmarks.contenders.django_settings import set_up_django

_TABLE = "django_tasks_database_dbtaskresult"
_FILL = f"""
INSERT INTO {_TABLE}(id, status, enqueued_at, args_kwargs, priority, task_path, worker_ids,
  queue_name, backend_name, run_after, exception_class_path, traceback)
SELECT gen_random_uuid(), '{{status}}', now(),
  jsonb_build_object('args', jsonb_build_array(repeat('x', 180)), 'kwargs', '{{{{}}}}'::jsonb),
  number % 10, 'benchmarks.contenders.django_noop.noop', '["w"]', 'default', 'default', '{{due}}',
  '', '' FROM generate_series(1, {{rows}}) number
"""


class DjangoTasksDb(Contender):
    """With persistent connections; its default opens one per task, which is three times slower."""

    name = "django-tasks-db"
    title = "django-tasks-db"
    databases = ("postgresql", "sqlite")
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "enqueue-within", "bulk", "pick-up", "finished",
            "future", "memory", "import", "sqlite-enqueue", "sqlite-drain",
        }
    )  # fmt: skip
    python = "3.12"
    packages = ("django-tasks-db", "Django", "psycopg")
    imports = "import django.tasks, django_tasks_db, django.db"
    pace: ClassVar = {"drain": 350, "bulk": 1500, "enqueue": 1000, "sqlite": 400, "future": 3}
    unfinished: ClassVar = {
        "postgresql": f"SELECT EXISTS (SELECT FROM {_TABLE} WHERE status IN ('READY', 'RUNNING')"
        " AND run_after IS DISTINCT FROM '2099-06-01 00:00+00')",
        "sqlite": f"SELECT EXISTS (SELECT 1 FROM {_TABLE} WHERE status IN ('READY', 'RUNNING'))",
    }
    _task: Any

    def open(self) -> None:
        set_up_django(
            self.database,
            "django_tasks_db",
            TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        )
        from benchmarks.contenders import django_noop

        self._task = django_noop.noop

    def set_up(self) -> None:
        self.open()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)

    def reset(self) -> None:
        self._execute(
            f"TRUNCATE {_TABLE}" if self.database.kind == "postgresql" else f"DELETE FROM {_TABLE}"
        )

    def _execute(self, sql: str) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(sql)

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            self._task.enqueue(payload(number))

    def enqueue_within(self, count: int) -> None:
        from django.db import transaction

        for number in range(count):
            with transaction.atomic():
                self._task.enqueue(payload(number))

    def enqueue_bulk(self, count: int) -> None:
        """Many calls in one transaction: it has nothing for many at once."""
        from django.db import transaction

        for start in range(0, count, BATCH):
            with transaction.atomic():
                for number in range(start, min(start + BATCH, count)):
                    self._task.enqueue(payload(number))

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        self.open()
        from django.core.management import call_command

        interval = 0.005 if purpose == "pick-up" else 0
        return lambda: call_command(
            "db_worker", interval=interval, startup_delay=False, reload=False, verbosity=0
        )

    def fill(self, filling: Filling, rows: int) -> None:
        done = filling == "finished"
        status, due = ("SUCCESSFUL", "9999-01-01") if done else ("READY", "2099-06-01")
        self._execute(_FILL.format(status=status, due=f"{due} 00:00+00", rows=rows))


CONTENDER = DjangoTasksDb
