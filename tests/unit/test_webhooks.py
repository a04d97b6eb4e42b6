"""Signatures of received and sent webhooks, and the ledger of deliveries."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automate_kernel.base.errors import (
    ConfigError,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets import SecretRef
from automate_kernel.storage import MemoryStorage
from automate_kernel.triggers.webhooks import (
    GitHubSignature,
    HmacSignature,
    ReplayLedger,
    SignatureScheme,
    SlackSignature,
    StandardWebhooksSignature,
    StripeSignature,
    WebhookHeaders,
)


class Secrets:
    """A reader of the given secrets."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def get(self, key: str) -> str:
        if key not in self.values:
            raise SecretNotFoundError(key)
        return self.values[key]

    async def aget(self, key: str) -> str:
        return self.get(key)


def at(seconds: float) -> Callable[[], float]:
    return lambda: seconds


STRIPE_BODY = b"""{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "cus_123",
      "object": "customer",
      "created": 123456789,
      "email": "test@stripe.com",
      "livemode": false,
      "metadata": {}
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "customer.created"
}
"""
STRIPE_HEADER = (
    "t=1533204620,v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7,"
    "v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef"
)
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
    b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# Each as the service publishes it: scheme, secret, body, headers, time.
PUBLISHED: dict[str, tuple[SignatureScheme, str, bytes, dict[str, str], int]] = {
    # docs.github.com, "Validating webhook deliveries"
    "github": (
        GitHubSignature("KEY"),
        "It's a Secret to Everybody",
        b"Hello, World!",
        {
            "X-Hub-Signature-256": "sha256="
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        },
        0,
    ),
    # stripe-dotnet's tests, EventUtilityTest and event_test_signature.json
    "stripe": (
        StripeSignature("KEY"),
        "webhook_secret",
        STRIPE_BODY,
        {"Stripe-Signature": STRIPE_HEADER},
        1533204620,
    ),
    # docs.slack.dev, "Verifying requests from Slack"
    "slack": (
        SlackSignature("KEY"),
        "8f742231b10e8888abcd99yyyzzz85a5",
        SLACK_BODY,
        {
            "X-Slack-Request-Timestamp": "1531420618",
            "X-Slack-Signature": "v0="
            "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        1531420618,
    ),
    # standard-webhooks/standard-webhooks, the libraries' tests
    "standard": (
        StandardWebhooksSignature("KEY"),
        STANDARD_SECRET,
        b'{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        1614265330,
    ),
}

SCHEMES: dict[str, SignatureScheme] = {
    "github": GitHubSignature("KEY"),
    "stripe": StripeSignature("KEY"),
    "slack": SlackSignature("KEY"),
    "standard": StandardWebhooksSignature("KEY"),
    "shopify": HmacSignature("KEY", header="X-Shopify-Hmac-Sha256", encoding="base64"),
    "sha512": HmacSignature(
        "KEY",
        header="X-Signature",
        algorithm="sha512",
        timestamp_header="X-Time",
        signed="{timestamp}.{body}.{timestamp}",
    ),
}
TIMED = [name for name in SCHEMES if name not in ("github", "shopify")]
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
NOW = 1_700_000_000


def signed(name: str, body: bytes = b'{"a": 1}', *secrets: str) -> dict[str, str]:
    return SCHEMES[name].sign(body, *(secrets or (SECRET,)), message_id="msg_1", now=at(NOW))


def verifies(
    name: str, headers: Any, body: bytes = b'{"a": 1}', *, secret: str = SECRET, now: float = NOW
) -> bool:
    return SCHEMES[name].verify(headers, body, Secrets(KEY=secret), now=at(now))


@pytest.mark.parametrize("name", PUBLISHED)
def test_accepts_what_the_service_publishes_as_its_example(name: str) -> None:
    """Our idea of each scheme is the service's own."""
    scheme, secret, body, headers, time = PUBLISHED[name]
    assert scheme.verify(headers, body, Secrets(KEY=secret), now=at(time)) is True
    assert scheme.verify(headers, body + b" ", Secrets(KEY=secret), now=at(time)) is False


@pytest.mark.parametrize("name", ["github", "slack", "standard"])
def test_signs_as_the_service_does(name: str) -> None:
    """What we sign is, byte for byte, what the service would send."""
    scheme, secret, body, headers, time = PUBLISHED[name]
    message_id = headers.get("webhook-id")
    assert scheme.sign(body, secret, message_id=message_id, now=at(time)) == headers


@pytest.mark.parametrize("name", SCHEMES)
@given(body=st.binary(max_size=300), key=st.binary(min_size=1, max_size=64))
def test_accepts_whatever_it_signed(name: str, body: bytes, key: bytes) -> None:
    """Any body and any secret make the round trip."""
    secret = base64.b64encode(key).decode()
    assert verifies(name, signed(name, body, secret), body, secret=secret)


@pytest.mark.parametrize("name", SCHEMES)
@given(data=st.data())
def test_refuses_when_any_bit_was_flipped(name: str, data: st.DataObject) -> None:
    """A single flipped bit in the body or in any header's value is noticed."""
    body = data.draw(st.binary(min_size=1, max_size=60))
    parts: dict[str, bytes] = {"": body} | {
        header: value.encode() for header, value in signed(name, body).items()
    }
    where = data.draw(st.sampled_from(sorted(parts)))
    position = data.draw(st.integers(0, len(parts[where]) - 1))
    flipped = bytearray(parts[where])
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    parts[where] = bytes(flipped)
    body = parts.pop("")
    assert not verifies(name, parts, body)


_texts = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"(t=\d{0,12},)?(v1[=,])?[0-9a-f ,=]{0,80}", fullmatch=True),
    st.sampled_from(["", "v1,", "v0=", "sha256=", "t=,v1=", "١٧٠٠٠٠٠٠٠٠", "\udcff", "nan", "-1"]),
)


@pytest.mark.parametrize("name", SCHEMES)
@given(data=st.data())
def test_odd_headers_are_refused_and_never_raise(name: str, data: st.DataObject) -> None:
    """Whatever a stranger sends, the answer is no, and no exception."""
    names = [*signed(name), "other"]
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(names), _texts), max_size=6))
    assert not verifies(name, pairs, data.draw(st.binary(max_size=20)))


@pytest.mark.parametrize("name", SCHEMES)
def test_refuses_a_missing_or_repeated_header(name: str) -> None:
    """Two values for one header leave it open which one counts, so neither does."""
    headers = signed(name)
    for header, value in headers.items():
        rest = [(other, text) for other, text in headers.items() if other != header]
        assert not verifies(name, rest)
        assert not verifies(name, [*headers.items(), (header.upper(), value)])
        # As a server that joins repeated headers hands them over.
        assert not verifies(name, {**headers, header: f"{value},{value}"})


@pytest.mark.parametrize("name", TIMED)
def test_refuses_what_is_too_old_or_from_the_future(name: str) -> None:
    """Five minutes either way are allowed for, and no more."""
    headers = signed(name)
    assert verifies(name, headers, now=NOW + 300)
    assert verifies(name, headers, now=NOW - 300)
    assert not verifies(name, headers, now=NOW + 301)
    assert not verifies(name, headers, now=NOW - 301)


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("change", ["+{}", " {}", "{} ", "0{}", "{}.0", "{}e0", "1_{}", "{}\n"])
def test_refuses_times_that_are_not_plainly_written(name: str, change: str) -> None:
    """Texts that int() would take, and that another reader might take for another time."""
    headers = {
        header: value.replace(str(NOW), change.format(NOW))
        for header, value in signed(name).items()
    }
    assert not verifies(name, headers)


def test_header_names_are_read_in_any_case_and_as_bytes() -> None:
    """Frameworks disagree on the case of names, and ASGI gives bytes."""
    headers = signed("slack")
    assert verifies("slack", {name.upper(): value for name, value in headers.items()})
    assert verifies("slack", [(n.lower().encode(), v.encode()) for n, v in headers.items()])
    assert verifies("slack", {name: [value] for name, value in headers.items()})


def test_a_body_that_is_not_bytes_is_the_hosts_mistake() -> None:
    """Decoded text is no longer what was signed, and saying so saves hours."""
    with pytest.raises(TypeError, match="in bytes"):
        GitHubSignature("KEY").verify({}, "text", Secrets())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SCHEMES)
def test_tries_every_secret_while_one_is_rotated(name: str) -> None:
    """Requests signed with the old and with the new secret both pass, and no others."""
    old, new = base64.b64encode(b"old").decode(), base64.b64encode(b"new").decode()
    # A scheme of the same kind with two secrets.
    scheme = type(SCHEMES[name])(
        **{
            field: getattr(SCHEMES[name], field)
            for field in SCHEMES[name].__dataclass_fields__
            if field != "secret"
        },
        secret=("$secret:NEW", SecretRef("OLD")),
    )
    both = Secrets(NEW=new, OLD=old)
    for secret in (old, new):
        assert scheme.verify(signed(name, b"x", secret), b"x", both, now=at(NOW))
    assert not scheme.verify(signed(name, b"x"), b"x", both, now=at(NOW))
    # Once the old one is gone, its absence is no error.
    assert scheme.verify(signed(name, b"x", new), b"x", Secrets(NEW=new), now=at(NOW))
    assert not scheme.verify(signed(name, b"x", old), b"x", Secrets(NEW=new), now=at(NOW))


@pytest.mark.parametrize("name", ["stripe", "standard"])
def test_a_sender_signs_with_both_secrets_while_one_is_rotated(name: str) -> None:
    """A receiver that knows either secret accepts it."""
    other = base64.b64encode(b"another").decode()
    headers = signed(name, b"x", other, SECRET)
    assert verifies(name, headers, b"x")
    assert verifies(name, headers, b"x", secret=other)


def test_one_signature_can_not_hold_two_secrets() -> None:
    """Where the header has room for one signature, a second secret is refused, not dropped."""
    with pytest.raises(TypeError, match="one signature"):
        GitHubSignature().sign(b"", "a", "b")


@pytest.mark.parametrize(
    ("name", "empty"),
    [("standard", "whsec_"), *((name, empty) for name in SCHEMES for empty in ("", "  "))],
)
def test_an_empty_secret_verifies_nothing(name: str, empty: str) -> None:
    """Anyone can sign with an empty secret."""
    with pytest.raises(SecretError, match="KEY"):
        verifies(name, signed(name), secret=empty)
    with pytest.raises(SecretError):
        SCHEMES[name].sign(b"", empty)


def test_a_secret_that_can_not_be_read_is_not_the_senders_fault() -> None:
    """The host can answer "try again" instead of "wrong signature"."""

    class Down(Secrets):
        def get(self, key: str) -> str:
            raise SecretUnavailableError("the vault is down")

    with pytest.raises(SecretUnavailableError):
        GitHubSignature("KEY").verify(signed("github"), b"", Down())
    with pytest.raises(SecretNotFoundError):
        GitHubSignature("KEY").verify(signed("github"), b"", Secrets())


def test_secrets_are_not_read_for_a_request_without_signature() -> None:
    """A stranger's noise costs no look-up in the vault."""

    class Untouched(Secrets):
        def get(self, key: str) -> str:
            raise AssertionError(key)

    assert not StripeSignature("KEY").verify({}, b"", Untouched())


def test_many_signatures_are_refused() -> None:
    """A header full of guesses is no way to try many at once."""
    good = signed("stripe")["Stripe-Signature"]
    time, signature = good.split(",")
    assert not verifies("stripe", {"Stripe-Signature": ",".join([time, *[signature] * 17])})


def test_svix_headers_are_the_same_scheme_under_another_name() -> None:
    """Services that sign through Svix send ``svix-`` headers."""
    scheme = StandardWebhooksSignature("KEY", prefix="svix")
    headers = scheme.sign(b"x", STANDARD_SECRET, now=at(NOW))
    assert set(headers) == {"svix-id", "svix-timestamp", "svix-signature"}
    assert scheme.verify(headers, b"x", Secrets(KEY=STANDARD_SECRET), now=at(NOW))


def test_a_message_id_with_a_dot_is_refused() -> None:
    """``a.1`` at time 2 and ``a`` at time 1 with another body would have the same signature."""
    with pytest.raises(ValueError, match="dot"):
        StandardWebhooksSignature().sign(b"", STANDARD_SECRET, message_id="a.1")
    assert not verifies("standard", {**signed("standard"), "webhook-id": "msg.1"})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"header": "X", "algorithm": "md5"}, "md5"),
        ({"header": "X", "encoding": "base32"}, "base32"),
        ({"header": "X", "signed": "{timestamp}"}, "{body}"),
        ({"header": "X", "signed": "{timestamp}.{body}"}, "timestamp_header"),
        ({"header": "X", "timestamp_header": "T"}, "timestamp_header"),
        ({"header": "X", "secret": ()}, "names no secret"),
    ],
)
def test_a_scheme_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str) -> None:
    """A time that isn't signed, an unknown algorithm: found when the plugin is loaded."""
    with pytest.raises(ConfigError, match=problem):
        HmacSignature(**{"secret": "KEY", **options})


def test_a_secrets_value_in_the_place_of_its_key_is_refused_unseen() -> None:
    """The value would otherwise end up in a log as the key that was not found."""
    with pytest.raises(ConfigError) as caught:
        StripeSignature(STANDARD_SECRET)
    assert STANDARD_SECRET not in str(caught.value)


def test_headers_know_what_was_repeated() -> None:
    """A repeated header reads as missing; get_all has both values."""
    headers = WebhookHeaders([("A", "1"), ("a", "2"), (b"B", b"\xff")])
    assert headers.get("A") is None
    assert headers.get_all("a") == ["1", "2"]
    assert headers["b"] == "ÿ"
    assert dict(headers) == {"b": "ÿ"}
    assert len(headers) == 1
    assert WebhookHeaders(headers).get_all("A") == ["1", "2"]
    assert "ÿ" not in repr(headers)


def test_headers_of_a_multidict_keep_repetitions() -> None:
    """What was sent twice is known to be, in the mappings of httpx and Starlette too."""
    httpx, starlette = pytest.importorskip("httpx"), pytest.importorskip("starlette.datastructures")
    sent = [("X-Signature", "1"), ("X-Signature", "2"), ("X-Other", "3")]
    raw = [(name.lower().encode(), value.encode()) for name, value in sent]
    for mapping in (httpx.Headers(sent), starlette.Headers(raw=raw)):
        headers = WebhookHeaders(mapping)
        assert headers.get("x-signature") is None
        assert headers.get_all("X-Signature") == ["1", "2"]
        assert headers["X-OTHER"] == "3"


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.time


def test_a_delivery_counts_once() -> None:
    """The second of two equal deliveries is told the item of the first."""
    storage = MemoryStorage()
    ledger = ReplayLedger(storage)
    first, second = "01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"
    with storage.begin() as rows:
        assert ledger.item_of(rows, "github", "push", "d1") is None
        assert ledger.remember(rows, "github", "push", "d1", first)
        assert not ledger.remember(rows, "github", "push", "d1", second)
        assert ledger.item_of(rows, "github", "push", "d1") == first


def test_deliveries_of_others_are_others() -> None:
    """Ids are compared within one connector, trigger and tenant, however they are put together."""
    storage = MemoryStorage()
    ledger = ReplayLedger(storage)
    item = "01900000-0000-7000-8000-000000000001"
    with storage.begin() as rows:
        assert ledger.remember(rows, "a", "b", "c", item)
        assert ledger.remember(rows, "a", "bc", "", item)
        assert ledger.remember(rows, "ab", "", "c", item)
        assert ledger.remember(rows, "a", "b", "c", item, tenant_id="t")
        assert ledger.remember(rows, "a", "b", "\udcff\0" + "x" * 9000, item)


def test_a_rolled_back_delivery_may_come_again() -> None:
    """If the item was not stored, neither was the delivery."""
    storage = MemoryStorage()
    ledger = ReplayLedger(storage)
    item = "01900000-0000-7000-8000-000000000001"
    with pytest.raises(RuntimeError), storage.begin() as rows:
        ledger.remember(rows, "github", "push", "d1", item)
        raise RuntimeError
    with storage.begin() as rows:
        assert ledger.remember(rows, "github", "push", "d1", item)


def test_old_deliveries_are_forgotten() -> None:
    """The table does not grow for ever, and what may still be replayed stays."""
    clock = Clock()
    storage = MemoryStorage(clock=clock)
    ledger = ReplayLedger(storage)
    item = "01900000-0000-7000-8000-000000000001"
    with storage.begin() as rows:
        for number in range(1_001):
            ledger.remember(rows, "github", "push", f"old {number}", item)
    clock.time += timedelta(days=31)
    with storage.begin() as rows:
        ledger.remember(rows, "github", "push", "new", item)
    assert ledger.forget() == 1_001
    with storage.begin() as rows:
        assert ledger.item_of(rows, "github", "push", "new") == item
    with pytest.raises(ConfigError, match="an hour"):
        ledger.forget(60)


STANDARD = StandardWebhooksSignature("KEY")


def refused(scheme: SignatureScheme, headers: Any, body: bytes, **secrets: str) -> str:
    """Return the words on a request that came at 1,000 seconds."""
    assert not scheme.verify(headers, body, Secrets(KEY="QUJDRA=="), now=at(1_000))
    return scheme.refusal(headers, body, Secrets(**(secrets or {"KEY": "QUJDRA=="})), now=at(1_000))


def test_a_refusal_says_what_a_request_lacks() -> None:
    """Who sets a webhook up sees one line in the log, and nothing else."""
    right = STANDARD.sign(b"{}", "QUJDRA==", now=at(1_000))
    without = {name: value for name, value in right.items() if name != "webhook-signature"}
    assert refused(STANDARD, without, b"{}") == "no header webhook-signature"
    twice = [*right.items(), ("webhook-id", "other")]
    assert refused(STANDARD, twice, b"{}") == "the header webhook-id is there 2 times"
    odd = {**right, "webhook-signature": "v9,abc"}
    assert "StandardWebhooksSignature can't read webhook-id, " in refused(STANDARD, odd, b"{}")
    old = STANDARD.sign(b"{}", "QUJDRA==", now=at(100))
    assert "it was signed 900 seconds ago: " in refused(STANDARD, old, b"{}")
    early = STANDARD.sign(b"{}", "QUJDRA==", now=at(2_000))
    assert "it was signed 1,000 seconds from now: " in refused(STANDARD, early, b"{}")
    assert "not signed with KEY: the service has another secret" in refused(STANDARD, right, b"{ }")
    assert "'KEY' was not found" in refused(STANDARD, right, b"{ }", OTHER="QUJDRA==")


@pytest.mark.parametrize("scheme", [GitHubSignature(), SlackSignature(), StripeSignature()])
def test_a_refusal_names_the_header_of_the_scheme(scheme: SignatureScheme) -> None:
    headers = {"User-Agent": "x"}
    assert scheme.refusal(headers, b"{}", Secrets()) == f"no header {scheme.header}"  # type: ignore[attr-defined]
