"""Which names and addresses are this machine."""

import pytest

from automate_kernel.base.hosts import check_encrypted, is_loopback, is_plain_http


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "localhost.example", "127.0.0.1.example", "10.0.0.1", "0.0.0.0", "::"]
)
def test_another_machine(host):
    """Or none at all: what is not known is not trusted."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://api.example", True),
        ("HTTP://10.0.0.1:8080/x", True),
        ("http://localhost.example", True),
        ("https://api.example", False),
        ("http://127.0.0.1:1", False),
        ("http://[::1]", False),
        ("http://localhost/x", False),
        ("http://[nowhere", False),
        ("", False),
    ],
)
def test_credentials_go_in_the_clear_to_this_machine_alone(url, plain):
    assert is_plain_http(url) is plain
    check_encrypted(url, allow_plain_http=True)
    if plain:
        with pytest.raises(ValueError, match=r"use https://.*allow_plain_http"):
            check_encrypted(url)
    else:
        check_encrypted(url)
