"""The address of a service, from a document's servers or from the config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from automate_kernel.base.errors import ConfigError
from automate_openapi.config import OpenApiConfig
from automate_openapi.document import ApiDocument, is_url, mapping, shown
from automate_openapi.names import OperationPlace

_VARIABLE = re.compile(r"\{([^{}]+)\}")


def base_url(
    document: ApiDocument, config: OpenApiConfig, place: OperationPlace | None = None
) -> str:
    """
    Return the address for an action at *place*, without a slash at its end.

    A document that was fetched chooses among the addresses of its own host only: the credentials
    go there. Raises `ConfigError`.
    """
    if config.base_url is not None:
        return config.base_url.rstrip("/")
    own = _servers(place.operation) or _servers(place.item) if place is not None else []
    servers = own or _servers(document.content) or [{"url": "/"}]
    index = config.server if not own else 0
    if index >= len(servers):
        raise ConfigError(
            f"the document {shown(document.place)} has {len(servers)} server(s), "
            f"and no number {index}"
        )
    found = _address(mapping(servers[index]), config.server_variables, document)
    return _trusted(found, document).rstrip("/")


def _servers(holder: Mapping[str, Any]) -> Sequence[Any]:
    found = holder.get("servers")
    return found if isinstance(found, list) else []


def _address(server: Mapping[str, Any], given: Mapping[str, str], document: ApiDocument) -> str:
    variables = mapping(server.get("variables"))

    def value(match: re.Match[str]) -> str:
        name = match[1]
        described = mapping(variables.get(name))
        found = given.get(name, described.get("default"))
        if found is None:
            raise ConfigError(
                f"the address of {shown(document.place)} has the variable {name!r}",
                hint="give it in server_variables, or all of the address as base_url",
            )
        allowed = described.get("enum")
        if isinstance(allowed, list) and str(found) not in map(str, allowed):
            raise ConfigError(
                f"server_variables: {name!r} is not one of {', '.join(map(str, allowed))}"
            )
        return str(found)

    return _VARIABLE.sub(value, str(server.get("url", "/")))


def _trusted(address: str, document: ApiDocument) -> str:
    from_web = is_url(document.place)
    try:
        found = urlsplit(urljoin(document.place, address) if from_web else address)
    except ValueError:  # brackets that hold no address
        found = urlsplit("")
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ConfigError(
            f"the document {shown(document.place)} has no whole address of its service",
            hint="give it as base_url",
        )
    if from_web and (found.scheme, found.netloc) != urlsplit(document.place)[:2]:
        raise ConfigError(
            f"the document {shown(document.place)} names a service on another host, "
            f"{found.hostname!r}, which would get your credentials",
            hint="if it is the right one, give its address as base_url",
        )
    return found._replace(query="", fragment="").geturl()
