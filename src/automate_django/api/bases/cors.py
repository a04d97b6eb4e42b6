"""Cross-origin requests: the origins whose scripts may call a view from a browser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.cache import patch_vary_headers

from automate_django.api.bases.access import Configured, MixinOrderGuard

_PREFLIGHT = {"HTTP_ORIGIN", "HTTP_ACCESS_CONTROL_REQUEST_METHOD"}
_ASKED = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")


class Cors(MixinOrderGuard):
    """The behaviour of `CORSMixin`."""

    cors_allowed_origins: Any = Configured("CORS_ALLOWED_ORIGINS")
    cors_allowed_methods: Any = Configured("CORS_ALLOWED_METHODS")
    cors_allowed_headers: Any = Configured("CORS_ALLOWED_HEADERS")
    cors_exposed_headers: Any = Configured("CORS_EXPOSED_HEADERS")
    cors_allow_credentials: Any = Configured("CORS_ALLOW_CREDENTIALS")
    cors_max_age: Any = Configured("CORS_MAX_AGE")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).get("cors_allow_credentials") or "cors_allowed_origins" in vars(cls):
            origins, credentials = cls.cors_allowed_origins, cls.cors_allow_credentials
            refuse_any_with_credentials(origins, credentials, cls.__name__)

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer a preflight before authentication, and add the headers to every other answer."""
        if request.method == "OPTIONS" and request.META.keys() >= _PREFLIGHT:
            response: Any = HttpResponse(status=204)
            self._allow(request, response)
            if response.has_header("Access-Control-Allow-Origin"):
                response["Access-Control-Allow-Methods"] = ", ".join(self.cors_allowed_methods)
                response["Access-Control-Allow-Headers"] = ", ".join(self.cors_allowed_headers)
                response["Access-Control-Max-Age"] = str(self.cors_max_age)
            patch_vary_headers(response, _ASKED)
            return response
        response = super().dispatch(request, *args, **kwargs)
        self._allow(request, response)
        if response.has_header("Access-Control-Allow-Origin") and self.cors_exposed_headers:
            response["Access-Control-Expose-Headers"] = ", ".join(self.cors_exposed_headers)
        return response

    def is_origin_allowed(self, origin: str) -> bool:
        """Return True if scripts of *origin* may read the answer."""
        return origin in self.cors_allowed_origins

    def _allow(self, request: Any, response: Any) -> None:
        allowed = list(self.cors_allowed_origins)
        fixed = type(self).is_origin_allowed is Cors.is_origin_allowed
        if (fixed and not allowed) or response.has_header("Access-Control-Allow-Origin"):
            return  # closed, or a middleware of the project's decides
        if "*" in allowed:
            if not self.cors_allow_credentials:
                response["Access-Control-Allow-Origin"] = "*"
            return
        # Also where there is no origin: a cache must not give that answer to a browser.
        patch_vary_headers(response, ("Origin",))
        origin = request.META.get("HTTP_ORIGIN")
        if origin is None or not self.is_origin_allowed(origin):
            return
        response["Access-Control-Allow-Origin"] = origin
        if self.cors_allow_credentials:
            response["Access-Control-Allow-Credentials"] = "true"


class CORSMixin(Cors):
    """
    CORS headers on every answer, errors too; preflights are answered without authentication.

    Its attributes are set on the view, or for all views in ``AUTOMATE_API``. One allowed origin is
    echoed, with ``Vary: Origin``.
    """


def refuse_any_with_credentials(origins: Iterable[str], credentials: Any, where: str) -> None:
    """Raise `ImproperlyConfigured` if scripts of any origin could act as the user."""
    if isinstance(origins, str):
        raise ImproperlyConfigured(f"{where}: the allowed origins are a list, not a text")
    if credentials and "*" in origins:
        raise ImproperlyConfigured(
            f"{where}: any origin ('*') with credentials would let every site act as its visitor;"
            " list the origins"
        )
