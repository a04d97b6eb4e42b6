"""huey on SQLite: at most once, for it deletes an item when it takes it, and has no lease."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import Contender, Purpose, payload


class Huey(Contender):
    """With fsync on, which is SQLite's synchronous=FULL, and its quickest polling."""

    name = "huey"
    title = "huey"
    databases = ("sqlite",)
    offers = frozenset({"sqlite-enqueue", "sqlite-drain", "import"})
    packages = ("huey",)
    imports = "import huey"
    pace: ClassVar = {"sqlite": 4000}
    unfinished: ClassVar = {"sqlite": "SELECT EXISTS (SELECT 1 FROM task)"}
    _huey: Any
    _task: Any

    def open(self) -> None:
        from huey import SqliteHuey

        logging.getLogger("huey").setLevel(logging.ERROR)
        self._huey = SqliteHuey("noop", filename=self.database.name, results=False, fsync=True)
        self._task = self._huey.task()(noop)

    def set_up(self) -> None:
        self.open()

    def reset(self) -> None:
        self._huey.storage.flush_queue()
        self._huey.storage.flush_schedule()

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            self._task(payload(number))

    def enqueue_bulk(self, count: int) -> None:
        """One by one: it has nothing for many at once."""
        self.enqueue_each(count)

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        self.open()
        consumer = self._huey.create_consumer(
            workers=1,
            initial_delay=0.001,
            max_delay=0.005,
            periodic=False,
            check_worker_health=False,
        )
        return consumer.run


def noop(body: Any) -> None:
    """The handler."""
    counter.tick()


CONTENDER = Huey
