"""Hostile values in the parts of a request, as a server reads them."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, parse_qsl, quote, unquote

import pytest
from automate_http import HttpConnector, ServiceClient
from recording_service import service  # noqa: F401 - a fixture

from automate_kernel import Kernel
from automate_kernel.operations.context import Call, calling
from automate_testing import HOSTILE_VALUES, HostileValuesContract

TOLD = {"host", "x-own", "content-length", "content-type"}


class TestHttp(HostileValuesContract):
    places = (
        "header",
        "header name",
        "path",
        "unquoted path",
        "query",
        "query name",
        "form",
        "text",
        "json",
        "method",
    )
    accepts = {
        "query": {"crlf", "latin", "percent_crlf", "nul", "parent", "query", "plus"},
        "form": {"crlf", "latin", "percent_crlf", "query", "plus"},
        "json": {"crlf", "latin", "json", "nul"},
        "header": {"encoded_word", "quote", "semicolon", "template"},
    }  # fmt: skip

    @pytest.fixture(autouse=True)
    def _kernel(self, service):
        self.service = service
        config = {**service.config, "headers": {"x-own": "ours"}}
        with Kernel(plugins=[HttpConnector], config={"http": config}, discover=False) as kernel:
            self.kernel = kernel
            yield

    def carry(self, place, value):
        sent = {"method": "POST", "url": "/here"}
        match place:
            case "header":
                sent["headers"] = {"X-Value": value}
            case "header name":
                sent["headers"] = {f"X-{value}": "1"}
            case "path":
                sent["url"] = f"/here/{quote(value, safe='', errors='replace')}"
            case "unquoted path":
                sent["url"] = f"/here/{value}"
            case "query":
                sent["query"] = {"q": value}
            case "query name":
                sent["query"] = {value: "1"}
            case "form":
                sent["form"] = {"q": value}
            case "text" | "json":
                sent[place] = value
            case "method":
                sent["method"] = value if value != self.harmless else "PUT"
        before = len(self.service.sent)
        self.kernel.invoke("http.request", sent, literal=True)
        (got,) = self.service.sent[before:]
        headers = {k: v for k, v in got.headers.items() if k not in TOLD and not k.startswith("x-")}
        path, _, query = got.target.partition("?")
        beside = [headers, got.method if place != "method" else "", path, query, got.body]
        match place:
            case "header":
                return got.headers["x-value"], beside
            case "header name":
                (name,) = {k for k in got.headers if k.startswith("x-")} - {"x-own"}
                return name[2:], beside
            case "path":
                return unquote(path.removeprefix("/here/")), [*beside[:2], *beside[3:]]
            case "unquoted path":
                return path, [headers, got.method, got.body]
            case "query":
                return parse_qs(query, keep_blank_values=True)["q"][0], [*beside[:3], beside[4]]
            case "query name":
                return parse_qsl(query, keep_blank_values=True)[0][0], [*beside[:3], beside[4]]
            case "form":
                found = parse_qsl(got.body.decode(), keep_blank_values=True)
                return found[0][1], beside[:4]
            case "json":
                return json.loads(got.body), beside[:4]
            case "text":
                return got.body.decode(), beside[:4]
        return got.method, beside

    def same(self, place, value, arrived):
        if place == "method":
            return value == self.harmless
        if place == "header name":
            return arrived == value.lower()
        if place == "unquoted path":
            # It may have become a query, but it stays below its folder.
            parts = re.split(r"[/\\\\]", unquote(arrived))
            return arrived.startswith("/here/") and arrived.isascii() and ".." not in parts
        if place == "path":
            # The test itself has quoted it, as the filter urlencode does.
            return arrived == value.encode("utf-8", "replace").decode()
        return arrived == value


class TestServiceClient(HostileValuesContract):
    """The client that plugins are written with."""

    places = ("part", "query", "form", "json", "header", "idempotency key")
    accepts = {
        "part": {"latin", "query", "percent_crlf", "slash"},
        "query": {"crlf", "latin", "percent_crlf", "query"},
        "idempotency key": set(HOSTILE_VALUES),
    }

    @pytest.fixture(autouse=True)
    def _client(self, service):
        self.service = service
        self.client = ServiceClient(
            service.url, allow_private_networks=["127.0.0.1"], idempotency_header="Key"
        )
        yield
        self.client.close()

    def carry(self, place, value):
        sent = {"form": {"a": "1"}, "query": {"b": "2"}, "id": "x", "headers": {"c": "3"}}
        match place:
            case "part":
                sent["id"] = value
            case "query" | "form":
                sent[place]["q"] = value
            case "json":
                del sent["form"]
                sent["json"] = {"q": value}
            case "header":
                sent["headers"]["x-value"] = value
        key = value if place == "idempotency key" else "k"
        before = len(self.service.sent)
        with calling(Call("a.b", idempotency_key=key)):
            self.client.request("POST", "/in/{id}/end", **sent)
        (got,) = self.service.sent[before:]
        path, _, query = got.target.partition("?")
        headers = {name: text for name, text in got.headers.items() if name not in TOLD}
        found = {"query": parse_qsl(query, keep_blank_values=True), "path": path.split("/")}
        found |= {"headers": headers, "method": got.method}
        found["key"] = "a" if 0 < len(headers.pop("key")) <= 255 else ""
        if place == "json":
            return json.loads(got.body)["q"], found
        found["form"] = parse_qsl(got.body.decode(), keep_blank_values=True)
        match place:
            case "part":
                return unquote(found["path"].pop(2)), found
            case "header":
                return headers.pop("x-value"), found
            case "idempotency key":
                return value, found
        ((_, arrived),) = [pair for pair in found[place] if pair[0] == "q"]
        found[place] = [pair for pair in found[place] if pair[0] != "q"]
        return arrived, found
