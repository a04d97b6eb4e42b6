"""The seam between the kernel and a host's database. Plugin authors need nothing from here."""

from automate_kernel.storage.dialects import DIALECTS, Dialect
from automate_kernel.storage.memory import MemoryStorage
from automate_kernel.storage.rows import Clock, Now, Part, Plus, Row, Rows, Storage, Wakeup, Where
from automate_kernel.storage.sql import SqlRows
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
    "Part",
    "Plus",
    "Row",
    "Rows",
    "SqlRows",
    "Storage",
    "Table",
    "Wakeup",
    "Where",
]
