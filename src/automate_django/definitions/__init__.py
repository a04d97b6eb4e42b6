"""
Workflows in the database: saved in versions, switched on and off, picked up by every process.

What the admin's pages do, code can do too::

    from automate_django import definitions

    document = definitions.create(text, author="ann")
    definitions.save(document, changed_text, comment="Tell the warehouse too")
    definitions.restore(document, 1)
    definitions.switch(document, enabled=False)
"""

from automate_django.definitions.changing import create, restore, save, switch
from automate_django.definitions.checking import advice, checked, told
from automate_django.definitions.source import DatabaseWorkflows

__all__ = [
    "DatabaseWorkflows",
    "advice",
    "checked",
    "create",
    "restore",
    "save",
    "switch",
    "told",
]
