"""Access to AWS: region, credentials, endpoint and bounds, as connectors and stores take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from automate_kernel.base.errors import ConfigError
from automate_kernel.base.hosts import check_encrypted, check_endpoint


class AwsAccess(BaseModel):
    """
    The way to AWS, or to a service that is compatible with it.

    Credentials are those of `access_key_id` and `secret_access_key`, else of `profile`, else of
    botocore's default chain: environment, shared files, container and instance roles. With
    `role_arn` they are used to assume that role, which is renewed in time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    region: str | None = Field(default=None, examples=["eu-central-1"])
    """The region; by default that of the environment or of the profile."""
    profile: str | None = None
    """A profile of the shared AWS config files."""
    access_key_id: str | None = None
    """The id of static keys. The kernel hides it too, so signed URLs need other credentials."""
    secret_access_key: SecretStr | None = None
    """The secret of static keys; write ``$secret:KEY``."""
    session_token: SecretStr | None = None
    """The token of static keys that are temporary; write ``$secret:KEY``."""
    role_arn: str | None = Field(
        default=None,
        pattern=r"^arn:[\w-]+:iam::\d{12}:role/.+$",
        examples=["arn:aws:iam::123456789012:role/reader"],
    )
    """A role to assume."""
    external_id: str | None = None
    """The external id that the role asks for."""
    endpoint_url: Annotated[str, AfterValidator(check_endpoint)] | None = Field(
        default=None, examples=["https://minio.example.org"]
    )
    """Another address than AWS's own, for all services: MinIO, LocalStack. The environment's
    AWS_ENDPOINT_URL is not read."""
    allow_plain_http: bool = False
    """Let `endpoint_url` be http:// on other machines than this one."""
    ca_file: str | None = None
    """A file of authorities to trust in place of the public ones, in PEM."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=900)
    """The most seconds of one request, its answer included."""
    max_attempts: int = Field(default=3, ge=1, le=5)
    """Attempts of a request that was throttled, failed or got lost, within one call."""

    @model_validator(mode="after")
    def _fits(self) -> AwsAccess:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token belongs to access_key_id and secret_access_key")
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("external_id belongs to role_arn")
        if self.endpoint_url is not None:
            self.check_url(self.endpoint_url)
        return self

    @classmethod
    def of(cls, given: AwsAccess | Mapping[str, Any] | None) -> AwsAccess:
        """Return *given* as access; raise `ConfigError`, which shows no values, if it can't be."""
        if isinstance(given, AwsAccess):
            return given
        try:
            return cls.model_validate(dict(given or {}))
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False, include_context=False)
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'access'}: {e['msg']}" for e in found
        )
        raise ConfigError(f"the access to AWS is wrong: {problems}")

    def check_url(self, url: str) -> None:
        """Raise `ValueError` for a URL that would send requests in the clear to other machines."""
        check_encrypted(url, allow_plain_http=self.allow_plain_http)
