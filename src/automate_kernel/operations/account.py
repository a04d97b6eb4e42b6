"""A person's account at a service, which a plugin is connected to in a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = ["Account", "Consent"]


@dataclass(frozen=True, slots=True)
class Consent:
    """
    A question to a person, who answers it at *url* in a browser.

    *private* must come back to `Account.finish` and be seen by nobody else: a session holds it, or
    the memory of the process that asks.
    """

    url: str
    redirect_uri: str
    private: Mapping[str, str] = field(default_factory=dict, repr=False)


@runtime_checkable
class Account(Protocol):
    """The account of one plugin; `automate_http.OAuth2` is one."""

    @property
    def key(self) -> str:
        """The key of the secret in which its tokens are kept."""

    def begin(self, redirect_uri: str) -> Consent:
        """Return the question whose answer the browser brings to *redirect_uri*."""

    def finish(self, consent: Consent, answer_url: str, secrets: Any, *, by: str) -> None:
        """
        Take the answer, the URL that the browser was sent to, and store the tokens in *secrets*.

        *by* names the person, for those who look who has to connect it again. Raises
        `AutomateError` for an answer to another question, and for a no.
        """
