"""The credentials of a plugin that is written from a document: fields of its config, and code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from automate_http.headers import check_headers
from automate_kernel.base.errors import AutomateError
from automate_openapi.document import ApiDocument, BrokenReferenceError, is_url, mapping
from automate_openapi.names import OperationPlace
from automate_openapi.python_source import Bracket, line, literal

_EXAMPLE_URL = "https://auth.example.com"


@dataclass(frozen=True)
class ConfigField:
    """A field of the config. One without *default* has to be given, as in its *example*."""

    name: str
    type: str
    about: str
    default: str | Bracket | None = None
    example: Any = None
    secret: str | None = None
    """The default key of the secret that it names."""

    def source(self) -> str:
        """Return the source of the field."""
        default = "" if self.default is None else f" = {self.default}"
        if isinstance(self.default, Bracket):
            return Bracket(f"{self.name}: {self.type} = {self.default.head}", self.default.parts,
                        self.default.tail).written("    ")  # fmt: skip
        return f"    {self.name}: {self.type}{default}"


@dataclass(frozen=True)
class Credential:
    """A security scheme: the config *fields* for it, and the *call* that makes it in code."""

    fields: tuple[ConfigField, ...]
    call: Bracket
    oauth: bool = False
    person: bool = False
    """True if a person connects an account."""


class Schemes:
    """The security schemes of a *document*, for the plugin *name*."""

    def __init__(self, document: ApiDocument, name: str) -> None:
        self._document, self._name = document, name
        components = mapping(document.content.get("components"))
        self._schemes = mapping(components.get("securitySchemes"))
        self.notes: list[str] = []

    def chosen(self, places: Iterable[OperationPlace], address: str) -> list[Credential]:
        """
        Return the credentials that most of the operations at *places* take, at the same time.

        What the others need is in *notes*.
        """
        wanted = [self._alternatives(place) for place in places]
        counts = Counter(each for alternatives in wanted for each in alternatives if each)
        known = {each: self._made(each, address) for each in counts}
        best = max((each for each in counts if known[each]), key=counts.__getitem__, default=())
        for each, made in known.items():
            if made is None:
                self.notes.append(f"no code is written for the scheme {' with '.join(each)!r}")
        others = sum(1 for each in wanted if each and best not in each and () not in each)
        if others:
            self.notes.append(f"{others} of the operations want other credentials than the rest")
        return known.get(best) or []

    def _alternatives(self, place: OperationPlace) -> list[tuple[str, ...]]:
        told = place.operation.get("security", self._document.content.get("security"))
        if not isinstance(told, list):
            # Its author forgot to: where there is a single scheme it can be no other.
            return [tuple(self._schemes)] if len(self._schemes) == 1 else []
        return [tuple(map(str, each)) for each in told if isinstance(each, Mapping)]

    def _made(self, names: tuple[str, ...], address: str) -> list[Credential] | None:
        found = []
        for number, name in enumerate(names):
            suffix = f"_{number + 1}" if number else ""
            try:
                scheme, _ = self._document.resolved(self._schemes.get(name), self._document.place)
            except BrokenReferenceError:
                return None
            made = self._credential(scheme, suffix, address)
            if made is None:
                return None
            found.append(made)
        return found

    def _credential(
        self, scheme: Mapping[str, Any], suffix: str, address: str
    ) -> Credential | None:
        kind, word = scheme.get("type"), str(scheme.get("scheme", "")).lower()
        if kind == "http" and word == "basic":
            user = ConfigField(f"user{suffix}", "str", "The user's name.", example="automate")
            secret = self._secret("password", suffix)
            parts = [f"self.settings.{each.name}" for each in (user, secret)]
            return Credential((user, secret), Bracket("BasicAuth(", parts))
        if kind == "apiKey":
            return self._key(scheme, suffix)
        if kind == "oauth2" and (oauth := self._oauth(mapping(scheme.get("flows")), address)):
            return oauth if not suffix else None
        if kind in ("oauth2", "openIdConnect") or (kind == "http" and word == "bearer"):
            secret = self._secret("token", suffix)
            return Credential((secret,), Bracket("BearerAuth(", [_read(secret)]))
        return None

    def _key(self, scheme: Mapping[str, Any], suffix: str) -> Credential | None:
        classes = {"header": "HeaderAuth", "query": "QueryAuth", "cookie": "CookieAuth"}
        place, name = scheme.get("in"), scheme.get("name")
        if place not in classes or not isinstance(name, str) or not name:
            return None
        try:
            check_headers({name: ""} if place != "query" else {})
        except AutomateError:
            return None
        secret = self._secret("api_key", suffix)
        return Credential((secret,), Bracket(f"{classes[place]}(", [literal(name), _read(secret)]))

    def _secret(self, word: str, suffix: str) -> ConfigField:
        key = f"{self._name}_{word}{suffix}".upper()
        return ConfigField(
            f"{word}_secret{suffix}", "SecretKey",
            f"The key of the secret with the {word.replace('_', ' ').replace('api', 'API')}.",
            Bracket("Field(", [f"default={literal(key)}"]), secret=key,
        )  # fmt: skip

    def _oauth(self, flows: Mapping[str, Any], address: str) -> Credential | None:
        person = "clientCredentials" not in flows
        flow = mapping(flows.get("authorizationCode" if person else "clientCredentials"))
        if not flow:
            return None  # a token that was got elsewhere is all that is left
        key = f"{self._name}_client_secret".upper()
        scopes = [literal(str(each)) for each in mapping(flow.get("scopes"))]
        fields = [
            ConfigField("client_id", "str", "The client's id.", example="my-client"),
            ConfigField(
                "client_secret", "SecretKey", "The key of the secret with the client's own secret.",
                Bracket("Field(", [f"default={literal(key)}"]), secret=key,
            ),
            self._url("token_url", "The endpoint for tokens.", flow.get("tokenUrl"), address),
            ConfigField("scopes", "list[str]", "The scopes to ask for.", Bracket("[", scopes, "]")),
        ]  # fmt: skip
        if person:
            about = "The page on which a person allows the access."
            url = flow.get("authorizationUrl")
            fields.append(self._url("authorize_url", about, url, address))
        options = [f"{each.name}=self.settings.{each.name}" for each in fields]
        options += [f"{each}=self.settings.{each}" for each in (
            "allow_private_networks", "allow_plain_http", "ca_file")]  # fmt: skip
        account = literal(f"{self._name.replace('_', '-')}-account")
        parts = [account, f"plugin={literal(self._name)}", *options]
        return Credential(tuple(fields), Bracket("OAuth2(", parts), oauth=True, person=person)

    def _url(self, name: str, about: str, url: Any, address: str) -> ConfigField:
        """Return the field for an address that gets secrets: a document from afar chooses none."""
        given = line(url, 300) if isinstance(url, str) else ""
        hosts = {_host(each) for each in (address, self._document.place)}
        if not is_safe_url(given):
            return ConfigField(name, "BaseUrl", about, example=f"{_EXAMPLE_URL}/{name[:5]}")
        if is_url(self._document.place) and _host(given) not in hosts:
            self.notes.append(
                f"{name} is on another host, {_host(given)!r}, which would get your credentials: "
                "if it is right, give it in the config"
            )
            return ConfigField(name, "BaseUrl", about, example=given)
        return ConfigField(name, "BaseUrl", about, literal(given), example=given)


def is_safe_url(url: str) -> bool:
    """Return True if *url* can stand as the default of a ``BaseUrl`` that gets credentials."""
    from automate_http.urls import parse_base_url, require_encrypted

    try:
        require_encrypted(parse_base_url(url), allow_plain_http=False)
    except AutomateError:
        return False
    return True


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # brackets that hold no address
        return ""


def _read(field: ConfigField) -> str:
    return f"self.settings.{field.name}"
