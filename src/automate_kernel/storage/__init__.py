"""The seam: the kernel's tables in an application's database. Plugin authors never need it."""

from automate_kernel.storage.dialects import DIALECTS, Clock, Dialect
from automate_kernel.storage.memory import MemoryStorage
from automate_kernel.storage.query import Now, Plus, Portion, Where
from automate_kernel.storage.rows import Row, Rows, Storage, Wakeup
from automate_kernel.storage.tables import TABLES, Column, Index, Table

__all__ = [
    "DIALECTS",
    "TABLES",
    "Clock",
    "Column",
    "Dialect",
    "Index",
    "MemoryStorage",
    "Now",
    "Plus",
    "Portion",
    "Row",
    "Rows",
    "Storage",
    "Table",
    "Wakeup",
    "Where",
]
