"""
HTTP requests and signed webhooks for automate-kernel, guarded against request forgery.

Workflows use `HttpConnector`. Plugins that talk HTTP themselves can have the guard alone:
``httpx.AsyncClient(transport=GuardedTransport())``.
"""

from __future__ import annotations

from .addresses import AddressPolicy
from .config import HttpConfig
from .connector import HttpConnector
from .guard import Guard
from .messages import (
    GetInput,
    HttpResponse,
    PostInput,
    RequestInput,
    WebhookInput,
    WebhookResult,
)
from .transport import GuardedTransport

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
