"""
HTTP requests and signed webhooks for automate-kernel, guarded against request forgery.

Workflows use `HttpConnector`. Plugins for a service use `ServiceClient`, or have the guard alone:
``httpx.AsyncClient(transport=GuardedTransport())``.
"""

from __future__ import annotations

from automate_http.addresses import AddressPolicy
from automate_http.auth import (
    AllOf,
    Auth,
    BasicAuth,
    BearerAuth,
    CookieAuth,
    Credentials,
    HeaderAuth,
    QueryAuth,
)
from automate_http.config import HttpConfig
from automate_http.connector import HttpConnector
from automate_http.exchange import Reply
from automate_http.guard import Guard
from automate_http.messages import (
    GetInput,
    HttpResponse,
    PostInput,
    RequestInput,
    WebhookInput,
    WebhookResult,
)
from automate_http.oauth import OAuth2
from automate_http.oauth_account import OAuthAccount, OAuthServer
from automate_http.pages import Cursor, NextLink, Offset, Page, PageNumber, Pages
from automate_http.rate_limit import RateLimiter
from automate_http.relay import HttpRelay
from automate_http.service import ServiceClient
from automate_http.transport import GuardedTransport

__all__ = [
    "AddressPolicy",
    "AllOf",
    "Auth",
    "BasicAuth",
    "BearerAuth",
    "CookieAuth",
    "Credentials",
    "Cursor",
    "GetInput",
    "Guard",
    "GuardedTransport",
    "HeaderAuth",
    "HttpConfig",
    "HttpConnector",
    "HttpRelay",
    "HttpResponse",
    "NextLink",
    "OAuth2",
    "OAuthAccount",
    "OAuthServer",
    "Offset",
    "Page",
    "PageNumber",
    "Pages",
    "PostInput",
    "QueryAuth",
    "RateLimiter",
    "Reply",
    "RequestInput",
    "ServiceClient",
    "WebhookInput",
    "WebhookResult",
]
