"""Config: the servers, the sender, and the bounds."""

from __future__ import annotations

import ssl
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automate_kernel.base.hosts import is_loopback
from automate_kernel.secrets.keys import SecretKey
from automate_mail.account import MailOAuth, with_known_servers
from automate_mail.addresses import HeaderText, MailAddress

MEBIBYTE = 1_048_576


class MailServer(BaseModel):
    """A mail server, and the account there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, description="The server's name or address.")
    port: int | None = Field(
        None, ge=1, le=65_535, description="The port; by default that of the protocol and of `tls`."
    )
    tls: Literal["implicit", "starttls", "none"] = Field(
        "implicit",
        description="TLS from the first byte, by STARTTLS, or none, which is for loopback alone.",
    )
    ca_file: str | None = Field(
        None, description="A file of certificates to trust instead of the system's."
    )
    user: HeaderText | None = Field(None, description="The account; without one there is no login.")
    secret: SecretKey | None = Field(
        None, description="The key of the secret with the password or the access token."
    )
    auth: Literal["password", "xoauth2"] = Field(
        "password", description="What the secret is: a password, or an OAuth 2 access token."
    )

    @model_validator(mode="after")
    def _check(self) -> MailServer:
        if (self.user is None) != (self.secret is None and not self.by_account):
            raise ValueError("a login needs both: user, and secret, the key of its secret")
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError('tls = "none" is for this machine alone; use "implicit" or "starttls"')
        return self

    @property
    def by_account(self) -> bool:
        """True if it takes the tokens of the account that is connected."""
        return self.auth == "xoauth2" and self.secret is None

    def tls_context(self) -> ssl.SSLContext:
        """Return a context that checks the server's certificate and name."""
        return ssl.create_default_context(cafile=self.ca_file)


class SentFolder(BaseModel):
    """The folder of sent mail, in which a mail is looked for before it is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mailbox: str = Field("Sent", description="The folder's name.")
    append: bool = Field(
        True, description="Put a copy there; false where the service does it by itself."
    )


class MailConfig(BaseModel):
    """The connector's part of an application's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    smtp: MailServer | None = Field(None, description="The server that takes mail.")
    imap: MailServer | None = Field(None, description="The server that keeps mail.")
    sender: MailAddress | None = Field(
        None, description="The address that mail is from: a@b.example, or Name <a@b.example>."
    )
    sent: SentFolder | None = Field(
        None, description="The folder of sent mail, to recognise what was sent already."
    )
    inbox: str = Field("INBOX", description="The mailbox whose arrivals are events.")
    files_from: str | None = Field(None, description="The folder whose files may be attached.")
    timeout_seconds: float = Field(
        60.0, gt=0, le=3_600, description="The longest that a whole session takes."
    )
    max_message_bytes: int = Field(
        10 * MEBIBYTE, ge=1_024, le=100 * MEBIBYTE, description="The largest mail, sent or read."
    )

    oauth: MailOAuth | None = Field(
        None, description="The account for servers with `xoauth2` and no secret."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_known_servers(cls, config: Any) -> Any:
        return with_known_servers(config)

    @model_validator(mode="after")
    def _check(self) -> MailConfig:
        for name, server in (("smtp", self.smtp), ("imap", self.imap)):
            if server is not None and server.by_account and self.oauth is None:
                raise ValueError(f"{name} with xoauth2 needs secret, or oauth with an account")
        if self.smtp is not None and self.sender is None:
            raise ValueError("smtp needs sender, the address that mail is from")
        if self.sent is not None and self.imap is None:
            raise ValueError("sent needs imap, the server with that folder")
        return self
