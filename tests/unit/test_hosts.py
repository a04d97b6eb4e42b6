"""Which names and addresses are this machine."""

import pytest

from automate_kernel.hosts import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "localhost.example", "127.0.0.1.example", "10.0.0.1", "0.0.0.0", "::"]
)
def test_another_machine(host):
    """Or none at all: what is not known is not trusted."""
    assert not is_loopback(host)
