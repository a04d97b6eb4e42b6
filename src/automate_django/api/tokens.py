"""Our own tokens: authentication by ``Authorization: Bearer``, and scopes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from automate_django.models import ApiToken
from automate_django.tenants import token_of
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)
_USE_NOTED_EVERY = timedelta(minutes=1)


class ServiceUser:
    """The user of a service's token: authenticated, and with no permission of its own."""

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False
    pk = id = None

    def __init__(self, token: ApiToken) -> None:
        self.token = token
        self.username = token.name
        self.tenant_id = token.tenant_id

    def get_username(self) -> str:
        """Return the token's name."""
        return self.username

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Return False: its token's scopes are its only rights."""
        return False

    def has_perms(self, perms: Any, obj: object = None) -> bool:
        """Return True if *perms* are none."""
        return not perms

    def has_module_perms(self, app_label: str) -> bool:
        """Return False."""
        return False

    __str__ = get_username


class ApiTokenAuthentication(BaseAuthentication):
    """
    Authenticates a request by its bearer token.

    `request.auth` is the `ApiToken`, `request.user` its user, or a `ServiceUser`. A token that is
    wrong, revoked or expired, or whose user is gone or inactive, gets one and the same 401.
    """

    keyword = "Bearer"

    def authenticate(self, request: Request) -> tuple[Any, ApiToken] | None:
        """Return the user and the token; None if the request has no token."""
        scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != self.keyword.lower():
            return None
        token = ApiToken.objects.matching(text.strip())
        user = None if token is None or not token.usable else _user_of(token)
        if token is None or user is None:
            if token is not None:
                logger.info("API token %s was refused: it or its user has ended", token.shown)
            raise AuthenticationFailed("The token is not valid.")
        _note_use(token)
        return user, token

    def authenticate_header(self, request: Request) -> str:
        """Return the header of a 401."""
        return f'{self.keyword} realm="api"'


def _user_of(token: ApiToken) -> Any:
    if token.user_id is None:
        return ServiceUser(token)
    model = get_user_model()
    try:
        user = model._default_manager.get(pk=token.user_id)
    except (model.DoesNotExist, ValidationError, ValueError):
        return None
    return user if user.is_active else None


def _note_use(token: ApiToken) -> None:
    now = timezone.now()
    over = now - _USE_NOTED_EVERY
    if token.last_used_at is not None and token.last_used_at > over:
        return
    mine = ApiToken.objects.filter(Q(last_used_at=None) | Q(last_used_at__lte=over), pk=token.pk)
    try:
        # A savepoint: in a host's transaction a failure must not take its work along.
        with transaction.atomic(using=mine.db):
            mine.update(last_used_at=now)
    except DatabaseError:
        # A read-only or locked database is no reason to turn anybody away.
        logger.warning("the use of API token %s could not be noted", token.shown, exc_info=True)


class HasRequiredScopes(BasePermission):
    """
    Lets a token through if it has the scopes that the view requires.

    The view's *required_scopes* are a list, or a mapping from action (``"create"``) or method
    (``"POST"``) to one or several. By default a view requires ``api:read``, or ``api:write`` for
    changes. Requests without a token are left to other permissions.
    """

    message = "The token has not the scope that this needs."

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return True if the token has all of them."""
        token = token_of(request)
        return token is None or all(map(token.allows, required_scopes(request, view)))


def required_scopes(request: Request, view: Any) -> Sequence[str]:
    """Return the scopes that *view* requires for *request*."""
    asked = getattr(view, "required_scopes", None) or None
    method = request.method or "GET"
    if isinstance(asked, Mapping):
        names = (getattr(view, "action", None), method, method.lower())
        asked = next((asked[name] for name in names if name in asked), None)
    if asked is None:
        return ["api:read" if method in SAFE_METHODS else "api:write"]
    return [asked] if isinstance(asked, str) else asked
