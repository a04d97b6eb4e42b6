"""The seam between the kernel and a host's database. Plugin authors need nothing from here."""

from .memory import MemoryStorage
from .rows import Clock, Now, Plus, Row, Rows, Storage, Wakeup, Where
from .sql import DIALECTS, Dialect, SqlRows
from .tables import TABLES, Column, Index, Table

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
    "Row",
    "Rows",
    "SqlRows",
    "Storage",
    "Table",
    "Wakeup",
    "Where",
]
