"""Hostile values in requests to S3 and SQS, as a server reads them."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from aws_support import Aws

from automate_testing import HostileValuesContract

CHANGING = {
    "host", "authorization", "x-amz-date", "amz-sdk-invocation-id", "content-length", "user-agent",
    "amz-sdk-request", "content-md5", "x-amz-content-sha256",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Notes each request, and answers that all is well."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the answer in one piece
    seen: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def _any(self) -> None:
        if hasattr(socket, "TCP_QUICKACK"):
            # A client of botocore sends the body only then, and it comes 40 ms late by itself.
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        assert len(headers) == len(self.headers.items())
        self.seen.append((self.path, headers, body))
        answer = b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>"
        if "x-amz-target" in headers:
            text = json.loads(body)["MessageBody"]
            digest = hashlib.md5(text.encode()).hexdigest()
            answer = json.dumps({"MessageId": "1", "MD5OfMessageBody": digest}).encode()
        self.send_response(200)
        self.send_header("ETag", "e")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    do_PUT = do_POST = do_GET = _any

    def handle_expect_100(self) -> bool:
        done = super().handle_expect_100()
        self.wfile.flush()  # a client waits a second for it
        return done

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Any:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestS3(HostileValuesContract):
    places = (
        "key",
        "copied key",
        "signed key",
        "metadata",
        "metadata name",
        "content type",
        "etag",
    )
    accepts = {
        **dict.fromkeys(("key", "copied key"), {"latin", "astral", "percent_crlf", "query"}),
        "metadata": {"quote", "encoded_word", "semicolon"},
    }

    @pytest.fixture(autouse=True)
    def _kernel(self, url: str) -> Any:
        aws = Aws(url, "t")
        with aws.kernel(s3={"buckets": ["bucket"]}) as kernel:
            self.kernel = kernel
            yield
        aws.close()

    def call(self, name: str, **given: Any) -> Any:
        return self.kernel.invoke(f"s3.{name}", given, literal=True)

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        Handler.seen.clear()
        put = {"key": "k", "content": "x"}
        match place:
            case "key":
                put["key"] = value
            case "copied key":
                self.call("copy_object", key="from", to_key=value)
            case "signed key":
                url = urlsplit(self.call("presign_url", key=value)["url"])
                return unquote(url.path.removeprefix("/bucket/")), sorted(parse_qs(url.query))
            case "metadata":
                put["metadata"] = {"n": value, "m": "1"}
            case "metadata name":
                put["metadata"] = {value: "1"}
            case "content type":
                put["content_type"] = f"text/{value}"
            case "etag":
                put["if_etag"] = value
        if place != "copied key":
            self.call("put_object", **put)
        ((path, headers, body),) = Handler.seen
        beside = {name: text for name, text in headers.items() if name not in CHANGING}
        key = unquote(path.removeprefix("/bucket/"))
        match place:
            case "metadata":
                return beside.pop("x-amz-meta-n"), (key, beside, body)
            case "metadata name":
                (name,) = (each for each in beside if each.startswith("x-amz-meta-"))
                beside.pop(name)
                return name.removeprefix("x-amz-meta-"), (key, beside, body)
            case "content type":
                return beside.pop("content-type").removeprefix("text/"), (key, beside, body)
            case "etag":
                return beside.pop("if-match"), (key, beside, body)
        return key, (beside, body)

    def same(self, place: str, value: str, arrived: Any) -> bool:
        return bool(arrived == (value.lower() if place == "metadata name" else value))


class TestSqs(HostileValuesContract):
    places = ("body", "attribute", "attribute name", "group", "deduplication id")
    mixtures = 20
    accepts: ClassVar[Any] = {"body": {"latin", "crlf", "json", "html"}}

    @pytest.fixture(autouse=True)
    def _kernel(self, url: str) -> Any:
        aws = Aws(url, "t")
        with aws.kernel(sqs={"queues": {"q": f"{url}/1/q.fifo"}}) as kernel:
            self.kernel = kernel
            yield
        aws.close()

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        Handler.seen.clear()
        sent: dict[str, Any] = {
            "queue": "q", "body": "x", "attributes": {"a": "1"}, "group": "g", "deduplication_id": "d"
        }  # fmt: skip
        match place:
            case "body":
                sent["body"] = value
            case "attribute":
                sent["attributes"]["b"] = value
            case "attribute name":
                sent["attributes"] = {value: "1"}
            case "group":
                sent["group"] = value
            case _:
                sent["deduplication_id"] = value
        self.kernel.invoke("sqs.send_message", sent, literal=True)
        ((_, headers, body),) = Handler.seen
        got = json.loads(body)
        attributes = {k: v["StringValue"] for k, v in got.pop("MessageAttributes").items()}
        beside = {name: text for name, text in headers.items() if name not in CHANGING}
        match place:
            case "body":
                found = got.pop("MessageBody")
            case "attribute":
                found = attributes.pop("b")
            case "attribute name":
                (found,) = attributes
                attributes = {}
            case "group":
                found = got.pop("MessageGroupId")
            case _:
                found = got.pop("MessageDeduplicationId")
        return found, (got, attributes, beside)
