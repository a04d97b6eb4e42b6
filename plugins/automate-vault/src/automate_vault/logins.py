"""Logins: the ways in which a process proves to Vault who it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from automate_kernel.base.errors import ConfigError, SecretUnavailableError

_MOST_BYTES = 65_536
# What a login's request has beside its secret: such a name, `shop`, may stand in any log.
NAMES = frozenset({"role", "role_id"})
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class _Model(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class TokenLogin(_Model):
    """
    A token that somebody else has made.

    A *token_file* is read again when its token ends or is refused: Vault's agent writes such files.
    """

    method: Literal["token"] = "token"
    token: SecretStr | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> TokenLogin:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("give one of token and token_file")
        return self

    def read(self) -> str:
        """Return the token."""
        return _value(self.token, self.token_file, "token_file")


class AppRoleLogin(_Model):
    """
    A role for machines. A *secret_id_file* is read at each login, so that it can be rotated.

    Without a secret id the role must not ask for one.
    """

    method: Literal["approle"] = "approle"
    role_id: str = Field(min_length=1)
    secret_id: SecretStr | None = None
    secret_id_file: Path | None = None
    mount: str = "approle"

    @model_validator(mode="after")
    def _not_two(self) -> AppRoleLogin:
        if self.secret_id is not None and self.secret_id_file is not None:
            raise ValueError("give one of secret_id and secret_id_file")
        return self

    def body(self) -> dict[str, str]:
        """Return the login's request."""
        if self.secret_id is None and self.secret_id_file is None:
            return {"role_id": self.role_id}
        secret_id = _value(self.secret_id, self.secret_id_file, "secret_id_file")
        return {"role_id": self.role_id, "secret_id": secret_id}


class KubernetesLogin(_Model):
    """
    The service account of a pod; its token is read at each login, since Kubernetes rotates it.

    With ``mount="jwt"`` it serves Vault's JWT method too, whose request is the same.
    """

    method: Literal["kubernetes"] = "kubernetes"
    role: str = Field(min_length=1)
    jwt_file: Path = _SERVICE_ACCOUNT
    mount: str = "kubernetes"

    def body(self) -> dict[str, str]:
        """Return the login's request."""
        return {"role": self.role, "jwt": _value(None, self.jwt_file, "jwt_file")}


Login = TokenLogin | AppRoleLogin | KubernetesLogin
_LOGIN: TypeAdapter[Login] = TypeAdapter(Annotated[Login, Field(discriminator="method")])


def parse_login(given: Any) -> Login:
    """Return *given*, a login or a mapping with its ``method``. Raises `ConfigError`."""
    if isinstance(given, (TokenLogin, AppRoleLogin, KubernetesLogin)):
        return given
    try:
        return _LOGIN.validate_python(given)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
    problems = "; ".join(
        f"{'.'.join(str(part) for part in each['loc'][1:]) or 'auth'}: {each['msg']}"
        for each in found
    )
    raise ConfigError(
        f"the auth of Vault is not valid: {problems}",
        hint='for example {method = "approle", role_id = "…", secret_id_file = "…"}; the methods '
        "are token, approle and kubernetes",
    )


def _value(given: SecretStr | None, file: Path | None, name: str) -> str:
    if given is not None:
        return given.get_secret_value()
    assert file is not None  # noqa: S101 - the models see to it
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        problem = f"can't be read: {type(error).__name__}"
    except UnicodeDecodeError:
        problem = "holds something else than one line of text"
    else:
        if text and text.isprintable() and len(text) <= _MOST_BYTES:
            return text
        problem = "holds something else than one line of text"
    # It may be about to be written: by an agent, or by Kubernetes as it rotates a token.
    raise SecretUnavailableError(f"the {name} of Vault's login, {str(file)!r}, {problem}")
