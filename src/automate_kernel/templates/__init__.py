"""
Templates in a workflow's inputs: Jinja's language, in a sandbox, over JSON.

Importing this package doesn't import Jinja; compiling the first template that needs it does.
"""

from __future__ import annotations

from automate_kernel.secrets.handles import areveal, masked, reveal
from automate_kernel.templates.context import EnvironmentResolver, TemplateContext
from automate_kernel.templates.engine import Condition, Template, TemplateEngine
from automate_kernel.templates.filters import FilterRegistry, default_filters, register_filter
from automate_kernel.templates.limits import Limits

__all__ = [
    "Condition",
    "EnvironmentResolver",
    "FilterRegistry",
    "Limits",
    "Template",
    "TemplateContext",
    "TemplateEngine",
    "areveal",
    "default_filters",
    "masked",
    "register_filter",
    "reveal",
]
