"""Inlines with sensible defaults."""

from __future__ import annotations

from django.contrib import admin


class InlineBaseAdmin(admin.TabularInline):  # type: ignore[type-arg]
    """
    A table of rows inside another row's page.

    ``extra`` is 0, ``max_num`` 10, ``show_change_link`` and ``can_delete`` True. Inside a
    `TenantScopedAdmin` it shows and takes the tenant's rows only, as any inline does there.
    """

    extra = 0
    max_num = 10
    show_change_link = True
    can_delete = True


class StackedInlineBaseAdmin(admin.StackedInline):  # type: ignore[type-arg]
    """`InlineBaseAdmin`, with a form below each other for each row."""

    extra = 0
    max_num = 10
    show_change_link = True
    can_delete = True
