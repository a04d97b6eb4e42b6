"""
GitHub as a connector: typed actions, verified webhooks, and all of the API by its document.

`GitHubConnector` signs in with a token or as a GitHub App.
"""

from __future__ import annotations

from automate_github.app import AppAuth
from automate_github.config import AppConfig, GitHubConfig, WebhookFilter
from automate_github.connector import GitHubConnector

__all__ = ["AppAuth", "AppConfig", "GitHubConfig", "GitHubConnector", "WebhookFilter"]
