"""The inputs and outputs of the actions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Scalar = str | int | float | bool


class _Input(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, description="http or https; relative if there is a base_url.")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Sent with the request, beside those of the config."
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="The most seconds in all."
    )


class GetInput(_Input):
    """A request without a body."""

    query: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict, description="Added to the URL's own query."
    )
    max_bytes: int | None = Field(
        default=None, ge=0, description="The most bytes of the response, unpacked."
    )
    follow_redirects: int | None = Field(
        default=None, ge=0, description="The most redirects; with 0 the redirect is the response."
    )
    raise_for_status: bool = Field(
        default=True, description="A status of 400 or more fails the action."
    )


class PostInput(GetInput):
    """A request with at most one kind of body."""

    json_body: Any = Field(default=None, alias="json", description="A body of JSON; null counts.")
    text: str | None = Field(default=None, description="A body of text, in UTF-8.")
    form: dict[str, Scalar | list[Scalar]] | None = Field(
        default=None, description="A body as an HTML form sends it."
    )

    @property
    def has_json(self) -> bool:
        """True if there is a JSON body, even ``null``."""
        return "json_body" in self.model_fields_set

    @property
    def has_body(self) -> bool:
        """True if there is a body of any kind."""
        return self.has_json or self.text is not None or self.form is not None

    @model_validator(mode="after")
    def _has_one_body(self) -> PostInput:
        if self.has_json + (self.text is not None) + (self.form is not None) > 1:
            raise ValueError("json, text and form are three kinds of body; give one")
        return self


class RequestInput(PostInput):
    """Any request."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="GET", description="The method; one that sends takes a body."
    )

    @model_validator(mode="after")
    def _can_have_body(self) -> RequestInput:
        if self.has_body and self.method in ("GET", "HEAD"):
            raise ValueError("a GET or HEAD request has no body")
        return self


class WebhookInput(_Input):
    """A webhook to send, signed as Standard Webhooks specifies."""

    payload: Any = Field(description="Sent as JSON.")
    secret: SecretStr | list[SecretStr] = Field(
        description="The secret to sign with, such as $secret:PARTNER_HOOK; several while one is "
        "rotated."
    )
    message_id: str | None = Field(
        default=None, description="By default the same for every attempt of the step."
    )


class HttpResponse(BaseModel):
    """The response to a request."""

    status: int
    ok: bool = Field(description="True if the status is below 400.")
    headers: dict[str, str] = Field(
        description="With names in lower case; without Set-Cookie, which is a credential."
    )
    json_body: Any = Field(
        default=None, alias="json", description="The body, if it says that it is JSON, and is."
    )
    text: str | None = Field(default=None, description="The body, if it is other text.")
    base64: str | None = Field(default=None, description="The body, if it is not text.")


class WebhookResult(BaseModel):
    """The outcome of a webhook that was sent."""

    status: int
    message_id: str
