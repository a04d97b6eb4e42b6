"""What is measured, in the order in which it is."""

from benchmarks.measures.base import Measure
from benchmarks.measures.costs import IMPORT, MEMORY, PICK_UP, WAIT, WAIT_LONG
from benchmarks.measures.drains import DRAIN_1, DRAIN_2, FINISHED, FUTURE, SQLITE_DRAIN
from benchmarks.measures.enqueuing import BULK, ENQUEUE, SQLITE_ENQUEUE, WITHIN
from benchmarks.measures.workflows import (
    ASYNC_STEPS,
    ELEMENTS,
    SQLITE_WORKFLOWS,
    WORKFLOWS,
    WORKFLOWS_EACH,
)

__all__ = ["MEASURES", "Measure"]

MEASURES = {
    measure.name: measure
    for measure in (
        DRAIN_1, DRAIN_2, ENQUEUE, WITHIN, BULK, PICK_UP, SQLITE_ENQUEUE, SQLITE_DRAIN,
        WORKFLOWS_EACH, WORKFLOWS, SQLITE_WORKFLOWS, ELEMENTS, ASYNC_STEPS, WAIT, WAIT_LONG,
        MEMORY, IMPORT, FINISHED, FUTURE,
    )
}  # fmt: skip
