"""
HTTP requests and signed webhooks for automate-kernel, guarded against request forgery.

Workflows use `HttpConnector`. Plugins that talk HTTP themselves can have the guard alone:
``httpx.AsyncClient(transport=GuardedTransport())``.
"""

from __future__ import annotations

from automate_http.addresses import AddressPolicy
from automate_http.config import HttpConfig
from automate_http.connector import HttpConnector
from automate_http.guard import Guard
from automate_http.messages import (
    GetInput,
    HttpResponse,
    PostInput,
    RequestInput,
    WebhookInput,
    WebhookResult,
)
from automate_http.transport import GuardedTransport

__all__ = [
    "AddressPolicy",
    "GetInput",
    "Guard",
    "GuardedTransport",
    "HttpConfig",
    "HttpConnector",
    "HttpResponse",
    "PostInput",
    "RequestInput",
    "WebhookInput",
    "WebhookResult",
]
