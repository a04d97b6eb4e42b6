"""The config of `GitHubConnector`: who asks, what of the API, and which webhooks count."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automate_http.fields import AnswerBytes, BaseUrl, CaFile, PlainHttp, PrivateNetworks
from automate_kernel.secrets.keys import SecretKey

_MIB = 1024 * 1024
_VALUES = ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "-----BEGIN")


class _GitHubTable(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class AppConfig(_GitHubTable):
    """A GitHub App that was installed in an account: its requests are made in its own name."""

    client_id: str = Field(min_length=1, examples=["Iv23liABCDEF"])
    """The App's client id, or its numeric id as text."""
    installation_id: int = Field(ge=1)
    """The installation's number, which is in the address of its settings page."""
    private_key_secret: SecretKey = Field(default="GITHUB_APP_PRIVATE_KEY")
    """The key of the secret with the App's private key, in PEM."""
    repositories: list[str] = []
    """The repositories, by name without the owner, that a token is good for; all if empty."""
    permissions: dict[str, str] = {}
    """The permissions of a token, such as ``issues = "write"``; all that the App has if empty."""


class WebhookFilter(_GitHubTable):
    """The webhooks that count, of those that are proved. Each list that is given must fit."""

    repositories: list[str] | None = None
    """Repositories as ``owner/name``; ``*`` stands for any text."""
    actions: list[str] | None = None
    """Actions, such as ``opened``. An event without an action doesn't count then."""
    branches: list[str] | None = None
    """
    Branches: of a push and of checks the one that they are of, of a pull request the one that it
    goes to. An event without a branch doesn't count then.
    """
    senders: list[str] | None = None
    """Logins of the people and Apps that caused the event."""


class GitHubConfig(_GitHubTable):
    """One account at GitHub, and the webhooks that it sends."""

    base_url: BaseUrl = "https://api.github.com"
    """The API's address; of GitHub Enterprise Server ``https://HOST/api/v3``."""
    token_secret: SecretKey = Field(default="GITHUB_TOKEN")
    """The key of the secret with a token, which is used if there is no *app*."""
    app: AppConfig | None = None
    """The GitHub App to be, in place of a token."""
    webhook_secrets: list[SecretKey] = Field(default=["GITHUB_WEBHOOK_SECRET"], min_length=1)
    """The keys of the secrets that webhooks are signed with: two while one is replaced."""
    webhooks: dict[str, WebhookFilter] = {}
    """The webhooks that start something, by the event's name or pattern; each that fits counts."""
    document: str | None = None
    """GitHub's OpenAPI document, a file or a URL: its operations are actions too."""
    document_actions: list[str] = ["*"]
    """The document's operations to have, by name or pattern: ``issues.*``."""
    api_version: str = Field(default="2022-11-28", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The version of the API that requests ask for."""
    allow_private_networks: PrivateNetworks = False
    allow_plain_http: PlainHttp = False
    ca_file: CaFile = None
    timeout_seconds: float = Field(default=30.0, gt=0, le=3_600)
    """The most seconds of a request."""
    max_response_bytes: AnswerBytes = 10 * _MIB

    @model_validator(mode="after")
    def _no_values(self) -> GitHubConfig:
        app = [] if self.app is None else [self.app.private_key_secret]
        for key in (self.token_secret, *self.webhook_secrets, *app):
            if key.lstrip().startswith(_VALUES):
                raise ValueError("a secret's value stands where its key belongs")
        return self
