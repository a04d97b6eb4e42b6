"""What a token may do: nothing but what its scopes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from automate_django.models import ApiToken

__all__ = ["HasRequiredScopes", "required_scopes"]


class HasRequiredScopes(BasePermission):
    """
    Lets a token through if it has the scopes that the view asks for.

    The view's *required_scopes* are a list, or a mapping from action (``"create"``) or method
    (``"POST"``) to one or several. A view without any asks for ``api:read``, or ``api:write`` where
    something is changed. Requests without a token are others' to judge.
    """

    message = "The token has not the scope that this needs."

    def has_permission(self, request: Request, view: Any) -> bool:
        """Whether the token has all of them."""
        token: Any = request.auth
        if not isinstance(token, ApiToken):
            return True
        return all(map(token.allows, required_scopes(request, view)))


def required_scopes(request: Request, view: Any) -> Sequence[str]:
    """The scopes that *view* asks for."""
    asked = getattr(view, "required_scopes", None)
    method = request.method or "GET"
    if isinstance(asked, Mapping):
        for name in (getattr(view, "action", None), method, method.lower()):
            if name in asked:
                return _listed(asked[name])
    elif asked:
        return _listed(asked)
    return ["api:read" if method in SAFE_METHODS else "api:write"]


def _listed(scopes: str | Sequence[str]) -> Sequence[str]:
    return [scopes] if isinstance(scopes, str) else scopes
