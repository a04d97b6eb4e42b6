"""
A guard of ``/admin/r/<content type>/<id>/``, "view on site".

Django's view redirects whoever is staff to the page of any object of any model, and an address
(``/projects/secret-merger/``) can give a name away. The view belongs to the site and not to an
admin class, so the first tenant-scoped admin of a site puts its own view before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.views import shortcut
from django.core.exceptions import ValidationError
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import path


def guard(site: Any) -> None:
    """Let *site* redirect only to objects that its admin classes show to the user."""
    if getattr(site, "automate_guarded", False):
        return
    unguarded = site.get_urls

    def get_urls() -> list[Any]:
        def view(request: HttpRequest, content_type_id: str, object_id: str) -> HttpResponseBase:
            if not _may_see(site, request, content_type_id, object_id):
                raise Http404
            return shortcut(request, content_type_id, object_id)

        route = "r/<path:content_type_id>/<path:object_id>/"
        return [path(route, site.admin_view(view), name="view_on_site"), *unguarded()]

    site.get_urls = get_urls
    site.automate_guarded = True


def _may_see(site: Any, request: HttpRequest, content_type_id: str, object_id: str) -> bool:
    try:
        model = ContentType.objects.get_for_id(int(content_type_id)).model_class()
    except (ValueError, ContentType.DoesNotExist):
        return False
    if model is None:
        return False
    for admin in _admins_of(site, model):
        if not admin.has_view_permission(request):
            continue
        try:
            obj = admin.get_queryset(request).filter(pk=object_id).first()
        except (ValueError, ValidationError, OverflowError, DataError):
            return False  # no value of such a key
        if obj is not None and admin.has_view_permission(request, obj):
            return True
    return False


def _admins_of(site: Any, model: Any) -> Iterator[Any]:
    """Return the admin class of *model*, and where it has none, the inlines that show it."""
    if model in site._registry:
        yield site._registry[model]
        return
    for admin in site._registry.values():
        inlines = getattr(admin, "scoped_inlines", list)(admin.inlines)
        yield from (each(admin.model, site) for each in inlines if each.model is model)
