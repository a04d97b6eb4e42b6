"""automate-kernel through Django's connection."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from benchmarks.contender import Database
from benchmarks.contenders.django_settings import set_up_django
from benchmarks.contenders.ours import Ours


class OursDjango(Ours):
    """In a Django project."""

    name = "ours-django"
    variants: ClassVar[tuple[str, ...]] = ()
    title = "ours, Django"
    packages = ("automate-kernel", "Django", "psycopg")
    imports = (
        "from automate_kernel import Kernel; from automate_django.storage import DjangoStorage"
    )
    bare_imports = "import pydantic, jinja2, psycopg, django.db.models"

    def __init__(self, database: Database, variant: str = "") -> None:
        super().__init__(database, variant)
        set_up_django(database, "automate_django")

    def storage(self) -> Any:
        from automate_django.storage import DjangoStorage

        return DjangoStorage()

    def transaction(self) -> AbstractContextManager[None]:
        from django.db import transaction

        return transaction.atomic()

    def execute(self, sql: str) -> list[Any]:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []


CONTENDER = OursDjango
