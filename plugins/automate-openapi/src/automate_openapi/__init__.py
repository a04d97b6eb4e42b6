"""
Any service with an OpenAPI document as a connector of typed, validated actions.

`OpenApiConnector` reads the document that its config names. ``automate openapi freeze`` writes a
typed module for editors.
"""

from __future__ import annotations

from automate_openapi.config import ActionHints, OpenApiConfig, PagesConfig, SchemeAuth
from automate_openapi.connector import OpenApiConnector

__all__ = ["ActionHints", "OpenApiConfig", "OpenApiConnector", "PagesConfig", "SchemeAuth"]
