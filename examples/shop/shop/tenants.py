"""Whose request it is. The settings name this function for the admin and for the API."""

from __future__ import annotations

from django.http import HttpRequest

from shop.models import Membership


def store_of(request: HttpRequest) -> str | None:
    """The key of the store that the user works for; None for somebody of no store."""
    membership = Membership.objects.filter(user_id=request.user.pk).first()
    return membership.store_id if membership else None
