"""The actions against a double of Slack, over HTTP."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_slack.testing import FakeSlack


def texts(slack: FakeSlack, channel: str) -> list[str]:
    return [each["text"] for each in slack.messages(channel)]


def methods(slack: FakeSlack) -> list[str]:
    return [method for method, _ in slack.calls]


def posting(kernel: Kernel, channel: str = "C0NEWS", **more: Any) -> None:
    kernel.add_workflow({
        "name": "post",
        "trigger": {"type": "manual"},
        "steps": [{
            "id": "post",
            "action": "slack.post_message",
            "input": {"channel": channel, "text": "out", **more},
            "retry": {"attempts": 3, "delay": "100ms"},
        }],
    })  # fmt: skip


def test_a_message_is_posted_changed_answered_and_marked(slack: FakeSlack, kernel: Kernel) -> None:
    """The ts that comes back leads to the message."""
    posted = kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "one"})
    reply = {"channel": "C0NEWS", "text": "two", "thread_ts": posted["ts"]}
    kernel.invoke("slack.post_message", reply)
    kernel.invoke("slack.update_message", {**posted, "text": "first"})
    for _ in range(2):  # the second time it is there already
        kernel.invoke("slack.add_reaction", {**posted, "name": ":tada:"})
    first, second = slack.messages("C0NEWS")
    assert (first["text"], first["reactions"]) == ("first", ["tada"])
    assert (second["text"], second["thread_ts"]) == ("two", posted["ts"])


def test_blocks_are_sent_and_taken_away(slack: FakeSlack, kernel: Kernel) -> None:
    """A text that replaces blocks is seen."""
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*big*"}}]
    given = {"channel": "C0NEWS", "text": "big", "blocks": blocks}
    posted = kernel.invoke("slack.post_message", given)
    assert slack.messages("C0NEWS")[0]["blocks"] == blocks
    kernel.invoke("slack.update_message", {**posted, "text": "small"})
    assert slack.messages("C0NEWS")[0]["blocks"] == []


@pytest.mark.parametrize("channel", ["kim@example.com", "U0KIM", "kim"])
def test_a_person_gets_a_direct_message(slack: FakeSlack, channel: str) -> None:
    """By e-mail, by id, or by the name that the config gives."""
    config = {**slack.config, "people": {"U0KIM": "kim"}}
    with Kernel(config={"slack": config}, secrets=slack.secrets) as kernel:
        posted = kernel.invoke("slack.post_message", {"channel": channel, "text": "hi"})
    assert texts(slack, posted["channel"]) == ["hi"]
    assert posted["channel"] == "D0KIM"


@pytest.mark.parametrize("content", [{"text": "größe"}, {"base64": "AP8Q"}])
def test_a_file_is_uploaded_and_shared(
    slack: FakeSlack, kernel: Kernel, content: dict[str, str]
) -> None:
    """By the three requests that Slack asks for, of which the second bears no token."""
    given = {"filename": "a.bin", "channel": "C0NEWS", "comment": "look", "title": "A", **content}
    found = kernel.invoke("slack.upload_file", given)
    (file,) = slack.files.values()
    expected = content.get("text", "").encode() or base64.b64decode(content.get("base64", ""))
    assert (file["content"], file["shared"]) == (expected, ["C0NEWS"])
    assert found["title"] == "A"
    assert texts(slack, "C0NEWS") == ["look"]


@pytest.mark.parametrize(
    "address",
    ["https://evil.example", "https://x.slack.com:y@evil.example", "https://evil.example#.slack.com",
     "https://slack.com.evil.example", "http://files.slack.com"],
)  # fmt: skip
def test_a_file_goes_to_nobody_else(slack: FakeSlack, kernel: Kernel, address: str) -> None:
    """Whatever address the answer has."""
    slack.root = address
    # The kernel was configured before: only the upload's address is the wrong one.
    with pytest.raises(AutomateError, match="isn't its own"):
        kernel.invoke("slack.upload_file", {"filename": "a", "text": "secret"})


def test_channels_come_in_pages(slack: FakeSlack, kernel: Kernel) -> None:
    """And are choices of the field in forms and commands."""
    slack.page_size = 2
    for number in range(5):
        slack.add_channel(f"C1{number}", f"room-{number}")
    slack.add_channel("C9", "old", archived=True)
    names = [each["name"] for each in kernel.invoke("slack.list_channels")["channels"]]
    assert names == ["general", "launch", "news", *(f"room-{number}" for number in range(5))]
    assert len(kernel.invoke("slack.list_channels", {"limit": 3})["channels"]) == 3
    found = kernel.options("slack.post_message", "channel", search="ROOM-3")
    assert [(each.value, each.label) for each in found] == [("C13", "#room-3")]


@pytest.mark.parametrize(
    ("error", "code", "retryable", "remedy"),
    [
        ("invalid_auth", ErrorCodes.UNAUTHENTICATED, False, "SLACK_BOT_TOKEN"),
        ("token_revoked", ErrorCodes.UNAUTHENTICATED, False, "SLACK_BOT_TOKEN"),
        ("not_in_channel", ErrorCodes.PERMISSION_DENIED, False, "/invite"),
        ("channel_not_found", ErrorCodes.NOT_FOUND, False, "id"),
        ("ratelimited", ErrorCodes.RESOURCE_EXHAUSTED, True, None),
        ("internal_error", ErrorCodes.UNAVAILABLE, True, None),
        ("an_error_of_tomorrow", ErrorCodes.INVALID_ARGUMENT, False, None),
    ],
)
def test_an_error_of_slack_says_whether_to_try_again(
    slack: FakeSlack, kernel: Kernel, error: str, code: ErrorCodes, retryable: bool, remedy: Any
) -> None:
    """Although its status is 200."""
    slack.fail("chat.postMessage", error)
    with pytest.raises(AutomateError, match=error) as caught:
        kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "x"})
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert (remedy or "") in (caught.value.hint or "")
    slack.fail("conversations.list", error)
    with pytest.raises(AutomateError, match=error):
        kernel.invoke("slack.list_channels")


@pytest.mark.parametrize("answer", [{}, {"user": [], "channel": 7, "files": {"0": 1}, "ts": None}])
@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("post_message", {"channel": "C0NEWS", "text": "x"}),
        ("post_message", {"channel": "kim@example.com", "text": "x"}),
        ("update_message", {"channel": "C0NEWS", "ts": "1.1", "text": "x"}),
        ("upload_file", {"filename": "a", "text": "x"}),
        ("find_user", {"email": "kim@example.com"}),
        ("open_conversation", {"users": ["U0KIM"]}),
    ],
)
def test_an_answer_without_what_was_asked_for_is_no_bug(
    slack: FakeSlack, kernel: Kernel, monkeypatch: Any, action: str, given: Any, answer: Any
) -> None:
    """Proxies and doubles answer so; nothing of it is taken for an id."""
    monkeypatch.setattr(slack, "call", lambda *_: answer)
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(f"slack.{action}", given)
    assert (caught.value.code, caught.value.retryable) == (ErrorCodes.FAILED_PRECONDITION, False)
    assert "None" not in str(slack.calls[-1])


def test_a_scope_that_is_missing_is_named(slack: FakeSlack, kernel: Kernel) -> None:
    """It is what has to be added."""
    slack.scopes.remove("reactions:write")
    with pytest.raises(AutomateError, match="add reactions:write") as caught:
        kernel.invoke("slack.add_reaction", {"channel": "C0NEWS", "ts": "1.1", "name": "x"})
    assert not caught.value.retryable


def test_a_wrong_token_is_no_secret_in_the_error(slack: FakeSlack) -> None:
    """It names the key."""
    wrong = {**slack.secrets, "SLACK_BOT_TOKEN": "xoxb-something-old"}
    kernel = Kernel(config={"slack": slack.config}, secrets=wrong)
    with kernel, pytest.raises(AutomateError, match="invalid_auth") as caught:
        kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "x"})
    assert "something-old" not in str(caught.value)


def test_a_limit_is_kept_to(slack: FakeSlack, kernel: Kernel) -> None:
    """The error has the wait; until it is over nothing is sent, by other steps neither."""
    slack.rate_limit("chat.postMessage", 77)
    for _ in range(2):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "x"})
        assert caught.value.code is ErrorCodes.RESOURCE_EXHAUSTED
        assert 70 < (caught.value.retry_after or 0) <= 77
    assert methods(slack) == ["chat.postMessage"]


# -- posts that are made once -----------------------------------------------------------------


@pytest.mark.parametrize("channel", ["C0NEWS", "#news", "kim@example.com"])
def test_a_post_whose_answer_was_lost_is_not_made_again(
    slack: FakeSlack, kernel: Kernel, channel: str
) -> None:
    """The step that runs again finds it by its key, which the message carries."""
    posting(kernel, channel)
    slack.lose_answer("chat.postMessage")
    kernel.start("post")
    kernel.run_until_idle(patience=5)
    (execution,) = kernel.executions.find(workflow="post")
    place = "D0KIM" if "@" in channel else "C0NEWS"
    assert execution.status == "COMPLETED"
    (message,) = slack.messages(place)
    assert execution.step("post").output == {"channel": place, "ts": message["ts"]}
    assert methods(slack).count("chat.postMessage") == 1


def test_a_post_of_a_failed_execution_is_found_when_that_is_resumed(
    slack: FakeSlack, kernel: Kernel
) -> None:
    """Its attempts begin anew, and its key doesn't."""
    posting(kernel)
    slack.lose_answer("chat.postMessage")
    slack.fail("conversations.history", 503, times=2)
    one = kernel.run("post")
    assert one.status == "FAILED"
    kernel.executions.resume(one.id)
    kernel.run_until_idle()
    assert kernel.executions.get(one.id).status == "COMPLETED"  # type: ignore[union-attr]
    assert texts(slack, "C0NEWS") == ["out"]


def test_a_caller_who_calls_again_with_the_same_key_finds_the_post(
    slack: FakeSlack, kernel: Kernel
) -> None:
    """Nobody counts the calls outside a workflow."""
    given = {"channel": "C0NEWS", "text": "out"}
    slack.lose_answer("chat.postMessage")
    with pytest.raises(AutomateError):
        kernel.invoke("slack.post_message", given, idempotency_key="k")
    found = kernel.invoke("slack.post_message", given, idempotency_key="k")
    (message,) = slack.messages("C0NEWS")
    assert found["ts"] == message["ts"]


def test_a_reply_whose_answer_was_lost_is_found_in_its_thread(
    slack: FakeSlack, kernel: Kernel
) -> None:
    """Replies are no part of a channel's history."""
    first = kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "one"})
    posting(kernel, thread_ts=first["ts"])
    slack.lose_answer("chat.postMessage")
    kernel.start("post")
    kernel.run_until_idle(patience=5)
    assert texts(slack, "C0NEWS") == ["one", "out"]


def test_a_reply_is_found_in_a_long_thread(slack: FakeSlack, kernel: Kernel) -> None:
    """Slack lists a thread from its beginning: the end counts, wherever it is."""
    first = kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "one"})
    with slack.lock:
        slack.posted["C0NEWS"] += [
            {"ts": slack.new_ts(), "text": "word", "thread_ts": first["ts"]} for _ in range(1_234)
        ]
    posting(kernel, thread_ts=first["ts"])
    slack.lose_answer("chat.postMessage")
    kernel.start("post")
    kernel.run_until_idle(patience=5)
    assert texts(slack, "C0NEWS").count("out") == 1


def test_a_post_that_is_not_among_the_newest_messages_is_made_and_the_log_says_so(
    slack: FakeSlack, kernel: Kernel, caplog: Any
) -> None:
    """A message too many rather than none."""
    with slack.lock:
        slack.posted["C0NEWS"] += [{"ts": slack.new_ts(), "text": "word"} for _ in range(1_000)]
    posting(kernel)
    slack.fail("chat.postMessage", 503)
    kernel.start("post")
    with caplog.at_level(logging.WARNING):
        kernel.run_until_idle(patience=5)
    assert texts(slack, "C0NEWS").count("out") == 1
    assert "among the 1000 messages looked at" in caplog.text


def test_a_post_that_slack_refused_is_made(slack: FakeSlack, kernel: Kernel) -> None:
    """What was not posted is not taken for posted, whoever else has posted the same words."""
    kernel.invoke("slack.post_message", {"channel": "C0NEWS", "text": "out"})
    posting(kernel)
    slack.fail("chat.postMessage", 503)
    for _ in range(2):  # each execution has a message of its own
        kernel.start("post")
        kernel.run_until_idle(patience=5)
    assert texts(slack, "C0NEWS") == ["out"] * 3


def test_without_the_scope_to_look_it_posts_again_and_says_so(
    slack: FakeSlack, kernel: Kernel, caplog: Any
) -> None:
    """A message too many rather than none, and the log has the remedy."""
    slack.scopes.remove("channels:history")
    posting(kernel)
    slack.lose_answer("chat.postMessage")
    kernel.start("post")
    with caplog.at_level(logging.WARNING):
        kernel.run_until_idle(patience=5)
    assert texts(slack, "C0NEWS") == ["out", "out"]
    assert "add channels:history" in caplog.text


@pytest.mark.slow
def test_a_kill_around_each_call_shows_each_effect_once(tmp_path: Path) -> None:
    """The question, the decision and the message after it, wherever the worker has died."""
    script = Path(__file__).parent / "support" / "crashing_worker.py"
    with FakeSlack() as slack:
        slack.add_user("U0ANN", "ann@example.com")
        places = [slack.add_channel(f"C{number:04}", f"place-{number}") for number in range(1, 20)]
        command = [sys.executable, str(script), slack.url, str(tmp_path)]
        subprocess.run(command, check=True, timeout=240)
        died = json.loads((tmp_path / "result.json").read_text())
        assert died == 7  # two posts and a change, before and after each; and the end
        for place in places[:died]:
            question, news = slack.messages(place)
            assert "*Approved* by <@U0ANN>" in question["text"], place
            assert news["text"] == "out", place
