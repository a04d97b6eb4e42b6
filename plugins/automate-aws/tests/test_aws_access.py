"""Access to AWS: where credentials come from, where requests may go, and what is logged."""

from __future__ import annotations

import logging
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from automate_aws.access import AwsAccess
from automate_aws.clients import AwsClients
from automate_aws.transport import AwsTransport
from aws_support import REGION, SECRET_KEY, Aws
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError

from automate_kernel import AutomateError, ConfigError
from automate_testing.contracts.hostile_service import hostile_service


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoint_url": "http://10.0.0.1:9000"}, "https"),
        ({"endpoint_url": "http://minio.example"}, "https"),
        ({"endpoint_url": "ftp://127.0.0.1"}, "no address"),
        ({"endpoint_url": "https://user:pass@minio.example"}, "more than"),
        ({"access_key_id": "A"}, "belong together"),
        ({"session_token": "t"}, "session_token"),
        ({"external_id": "x"}, "role_arn"),
        ({"role_arn": "my-role"}, "role_arn"),
        ({"regoin": "eu-central-1"}, "regoin"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_access_that_can_not_be_meant_is_refused(given: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        AwsAccess.of(given)


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint_url": "http://127.0.0.1:9000/"}, {"endpoint_url": "http://[::1]:9000"},
        {"endpoint_url": "http://localhost"}, {"endpoint_url": "https://minio.example"},
        {"endpoint_url": "http://minio.example", "allow_plain_http": True},
    ],
    ids=["ipv4", "ipv6", "name", "https", "allowed"],
)  # fmt: skip
def test_an_endpoint_in_the_clear_is_this_machine_or_allowed(given: Any):
    assert AwsAccess.of(given).endpoint_url == given["endpoint_url"].rstrip("/")


def identity(**access: Any) -> str:
    clients = AwsClients(AwsAccess.of({"region": REGION, **access}))
    try:
        return str(clients.call("sts", "get_caller_identity")["Arn"])
    finally:
        clients.close()


def test_credentials_of_the_environment_and_of_a_profile(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "credentials"
    file.write_text("[crm]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert identity(endpoint_url=moto, profile="crm")
    with pytest.raises(AutomateError, match="nobody"):
        identity(endpoint_url=moto, profile="nobody")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert identity(endpoint_url=moto)


def test_a_role_is_assumed_with_the_keys(moto: str):
    keys = {"access_key_id": "AKIAKEYS", "secret_access_key": SECRET_KEY}
    arn = identity(
        endpoint_url=moto,
        role_arn="arn:aws:iam::123456789012:role/reader",
        external_id="ours",
        **keys,
    )
    assert ":assumed-role/reader/automate-kernel" in arn


def test_without_credentials_or_region_nothing_is_sent():
    with hostile_service(lambda method, path: {}) as service:
        with pytest.raises(AutomateError) as caught:
            identity(endpoint_url=service.url)
        assert caught.value.code == "UNAUTHENTICATED" and not caught.value.retryable
        with pytest.raises(AutomateError, match="region") as caught:
            AwsClients(AwsAccess(endpoint_url=service.url)).call("sqs", "list_queues")
        assert not caught.value.retryable
        assert service.paths == []


def test_the_environment_does_not_say_where_requests_go(moto: str, monkeypatch: pytest.MonkeyPatch):
    with hostile_service(lambda method, path: {}) as service:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, service.url)
        assert identity(endpoint_url=moto, access_key_id="AKIA", secret_access_key="x")
        assert service.paths == []


@pytest.mark.parametrize(("attempts", "paths"), [(1, 1), (3, 3)])
def test_attempts_are_bounded(attempts: int, paths: int):
    with hostile_service(lambda method, path: {}) as service:
        service.manner = "unavailable"
        clients = AwsClients(
            AwsAccess(
                region=REGION, endpoint_url=service.url, access_key_id="A", secret_access_key="x",
                max_attempts=attempts,
            )
        )  # fmt: skip
        with pytest.raises(AutomateError):
            clients.call("sqs", "list_queues")
        assert len(service.paths) == paths


@pytest.mark.parametrize(
    ("said", "status", "code", "retryable"),
    [
        ("AccessDenied", 403, "PERMISSION_DENIED", False),
        ("AccessDeniedException", 400, "PERMISSION_DENIED", False),
        ("ExpiredTokenException", 400, "UNAUTHENTICATED", False),
        ("SignatureDoesNotMatch", 403, "UNAUTHENTICATED", False),
        ("ThrottlingException", 400, "RESOURCE_EXHAUSTED", True),
        ("com.amazonaws#ThrottlingException", 400, "RESOURCE_EXHAUSTED", True),
        ("SlowDown", 503, "RESOURCE_EXHAUSTED", True),
        ("ConditionalRequestConflict", 409, "ABORTED", True),
        ("NoSuchKey", 404, "NOT_FOUND", False),
        ("ResourceNotFoundException", 400, "NOT_FOUND", False),
        ("RequestTimeout", 400, "DEADLINE_EXCEEDED", True),
        ("InternalServiceError", 500, "INTERNAL", True),
        ("SomethingNew", 400, "INVALID_ARGUMENT", False),
        ("SomethingNew", 503, "UNAVAILABLE", True),
        ("301", 301, "FAILED_PRECONDITION", False),
        ("", 0, "FAILED_PRECONDITION", False),
    ],
)
def test_codes_of_the_services(said: str, status: int, code: str, retryable: bool):
    from automate_aws.failures import failure_of

    headers = {"retry-after": "7"}
    answer = {
        "Error": {"Code": said, "Message": "m"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    error = failure_of(ClientError(answer, "GetIt"), "s3 get_it")
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, 7.0)


@pytest.mark.parametrize(("sent", "late"), [(64 * 65_536, False), (7 * 65_536, True)])
def test_a_file_that_is_sent_has_a_second_for_each_64_kib(
    sent: int, late: bool, monkeypatch: pytest.MonkeyPatch
):
    """Its answer comes after all of it was sent, however long that took."""
    now = [0.0]
    monkeypatch.setattr("automate_aws.transport.time.monotonic", lambda: now[0])

    class Session:
        def send(self, request: AWSPreparedRequest) -> AWSResponse:
            now[0] += 20
            return AWSResponse(request.url, 200, {"Content-Length": "0"}, BytesIO())

    transport = AwsTransport(seconds=10, verify=True)
    transport._session = Session()
    for name in ("Content-Length", "X-Amz-Decoded-Content-Length"):
        request = AWSPreparedRequest("PUT", "http://127.0.0.1/", {name: str(sent)}, b"", False)
        if late:
            with pytest.raises(AutomateError, match="in time"):
                transport(request)
        else:
            assert transport(request).content == b""


def test_the_wire_log_shows_nothing_of_our_calls_and_all_of_others(
    aws: Aws, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG):
        aws.clients.call("secretsmanager", "create_secret", Name=aws.name, SecretString="tok-4711")
        aws.clients.call("secretsmanager", "get_secret_value", SecretId=aws.name)
        assert "tok-4711" not in caplog.text and "AWS4-HMAC" not in caplog.text
        logging.getLogger("botocore.endpoint").debug("a call of the host")
        assert "a call of the host" in caplog.text


def test_discovery_imports_nothing_of_aws():
    code = (
        "import sys, automate_aws; from automate_kernel import Kernel; "
        "names = Kernel().plugins.keys('connector'); "
        "print('s3' in names, 'sqs' in names, 'botocore' in sys.modules, "
        "'automate_aws.access' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "False"]
