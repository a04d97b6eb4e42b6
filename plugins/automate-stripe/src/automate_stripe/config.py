"""The config of `StripeConnector`: keys, the mode, webhooks, bounds."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automate_http.fields import AnswerBytes, BaseUrl, CaFile, PlainHttp, PrivateNetworks
from automate_kernel.secrets.keys import SecretKey

_MIB = 1024 * 1024
_VALUES = ("sk_live_", "sk_test_", "rk_live_", "rk_test_", "sk_org_", "whsec_")


class StripeConfig(BaseModel):
    """One account at Stripe, in one of its two modes."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    livemode: bool = False
    """True where money is real. Without it live keys and live events are refused."""
    api_key_secret: SecretKey = Field(default="STRIPE_API_KEY")
    """The key of the secret with Stripe's API key; take a restricted one (``rk_``)."""
    webhook_secrets: list[SecretKey] = Field(default=["STRIPE_WEBHOOK_SECRET"], min_length=1)
    """The keys of the secrets that webhooks are signed with: two while one is rolled."""
    tolerance_seconds: float = Field(default=300.0, gt=0, le=3_600)
    """The most seconds that a webhook's signed time may be off."""
    api_version: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}(\.[a-z]+)?$")
    """The version of the API that requests ask for; without it the account's own."""
    account: str | None = Field(default=None, pattern=r"^acct_[A-Za-z0-9]+$")
    """The connected account to act for, of a platform."""
    base_url: BaseUrl = "https://api.stripe.com"
    """The API's address."""
    allow_private_networks: PrivateNetworks = False
    allow_plain_http: PlainHttp = False
    ca_file: CaFile = None
    timeout_seconds: float = Field(default=80.0, gt=0, le=3_600)
    """The most seconds of a request. Stripe's own libraries take 80: banks are slow."""
    max_response_bytes: AnswerBytes = 10 * _MIB

    @model_validator(mode="after")
    def _no_values(self) -> StripeConfig:
        for key in (self.api_key_secret, *self.webhook_secrets):
            if key.startswith(_VALUES):
                raise ValueError("a secret's value stands where its key belongs")
        return self
