"""Inlines with sensible defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

if TYPE_CHECKING:
    from django.db.models import Model

    Stacked = admin.StackedInline[Model, Model]
    Tabular = admin.TabularInline[Model, Model]
else:
    Stacked = admin.StackedInline
    Tabular = admin.TabularInline


class InlineBaseAdmin(Tabular):
    """
    A table of rows inside another row's page.

    ``extra`` is 0, ``max_num`` 10, ``show_change_link`` and ``can_delete`` True. Inside a
    `TenantScopedAdmin` it shows and takes the tenant's rows only, as any inline does there.
    """

    extra = 0
    max_num = 10
    show_change_link = True
    can_delete = True


class StackedInlineBaseAdmin(Stacked):
    """`InlineBaseAdmin`, with a form below each other for each row."""

    extra = 0
    max_num = 10
    show_change_link = True
    can_delete = True
