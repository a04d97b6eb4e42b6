"""Errors tell where they were raised, without values, and what they have in common with others."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from automate_kernel.plugins.connectors import Connector, action
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.kernel import Kernel
from automate_kernel.secrets import SecretsBackend
from automate_kernel.storage import MemoryStorage
from automate_kernel.monitoring.logs import configure_logging
from automate_kernel.operations.invoker import logger as invoker_logger
from automate_testing.clock import FakeClock
from automate_kernel.secrets.tracebacks import MAX_GROUP, MAX_TRACE, group_of, raised_at, trace_of

SECRET = "tok-7788-abcd"
SHOP = """
def charge(card):
    prices = {"visa": 1}
    return prices[card]

def deep(n):
    return deep(n - 1) if n else charge("amex")

class Till:
    def charge(self, card):
        return charge_all([card])

    @classmethod
    def open(cls):
        raise OSError("shut")

def charge_all(cards):
    return [charge(card) for card in cards]

def parse(text):
    import json
    return json.loads(text)

def worded(card):
    try:
        charge(card)
    except KeyError as error:
        raise ValueError("no such card: " + card) from error

def hidden(card):
    try:
        charge(card)
    except KeyError:
        raise ValueError("no such card") from None

def decorate():
    def inner():
        raise LookupError("x")
    return inner
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the host's."""
    (tmp_path / "till_shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    import till_shop  # type: ignore[import-not-found]

    yield till_shop
    sys.modules.pop("till_shop", None)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    storage = MemoryStorage(FakeClock())
    with Kernel(storage, discover=False, secrets={"TOKEN": SECRET}) as kernel:
        yield kernel


def raised(function: Any, *given: Any) -> BaseException:
    try:
        function(*given)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


# -- groups ------------------------------------------------------------------------------------


def test_a_group_is_type_and_place_without_values(shop: ModuleType) -> None:
    """Two errors of one place are in one group, whatever they say; others are not."""
    first, second = raised(shop.charge, "amex"), raised(shop.charge, "diners")
    assert group_of(first) == group_of(second) == "KeyError in till_shop.charge"
    assert group_of(raised(shop.decorate())).startswith("LookupError in till_shop.")
    assert group_of(raised(shop.Till.open)) == "OSError in till_shop.Till.open"


def test_a_group_is_the_same_through_a_comprehension(shop: ModuleType) -> None:
    """On some versions of Python a comprehension is a function; the place is the code's own."""
    error = raised(lambda: [1 / 0 for _ in "x"])
    assert "<listcomp>" not in group_of(error)
    assert group_of(raised(shop.Till().charge, "amex")) == "KeyError in till_shop.charge"


def test_a_library_is_no_place(shop: ModuleType) -> None:
    """What raises inside the standard library is told by the host's function that called it."""
    assert group_of(raised(shop.parse, "{")) == "JSONDecodeError in till_shop.parse"


def test_a_group_is_bounded_and_redacted() -> None:
    """Names may be long, or made of data."""
    made = type("Error" + "x" * 500, (Exception,), {})

    def act() -> None:
        raise made

    assert len(group_of(raised(act))) <= MAX_GROUP
    assert SECRET not in group_of(raised(act), lambda text: text.replace("x", ""))


def test_errors_of_the_kernel_are_told_apart_by_their_code() -> None:
    """An AutomateError of no class of its own would else be one group for everything."""

    def act() -> None:
        raise AutomateError(ErrorCodes.UNAVAILABLE, "down")

    assert group_of(raised(act)).startswith("AutomateError UNAVAILABLE in ")


# -- traces ------------------------------------------------------------------------------------


def test_a_trace_shows_files_lines_and_source(shop: ModuleType) -> None:
    """As Python's own, without the text of the error."""
    error = raised(shop.charge, SECRET)
    trace = trace_of(error) or ""
    assert f'File "{shop.__file__}", line 4, in charge' in trace
    assert "return prices[card]" in trace
    assert trace.endswith("KeyError")
    assert SECRET not in trace


def test_what_it_was_raised_from_comes_first(shop: ModuleType) -> None:
    """Its type and place, and not its text; `from None` cuts it off."""
    trace = trace_of(raised(shop.worded, SECRET)) or ""
    assert trace.index("KeyError") < trace.index("which led to") < trace.index("ValueError")
    assert SECRET not in trace
    assert "KeyError" not in (trace_of(raised(shop.hidden, "amex")) or "").replace(
        "except KeyError", ""
    )


def test_an_error_is_raised_at_a_line_of_the_authors(shop: ModuleType) -> None:
    """Not at one of a library's, nor of code that was generated, such as a dataclass's."""
    line = shop.parse.__code__.co_firstlineno + 2
    found = raised_at(raised(shop.parse, "{"))
    assert found == f"JSONDecodeError in {shop.__file__}, line {line}"

    @dataclass
    class Made:
        given: object = field(default_factory=partial(json.loads, "{"))

    assert raised_at(raised(Made)).startswith(f"JSONDecodeError in {__file__}, line ")
    assert raised_at(raised(partial(eval, "1 +"))).startswith(f"SyntaxError in {__file__}, line ")
    assert raised_at(KeyError()) == "KeyError"


def test_a_trace_is_bounded(shop: ModuleType) -> None:
    """A stack overflow leaves its begin, its end, and how much is between."""
    trace = trace_of(raised(shop.deep, 600)) or ""
    assert "more frames]" in trace
    assert "in charge" in trace
    assert len(trace) <= MAX_TRACE
    long = "/".join(["x" * 200] * 40)
    namespace: dict[str, Any] = {}
    exec(compile("def f(n):\n return f(n - 1) if n else 1 / 0", long, "exec"), namespace)
    assert len(trace_of(raised(namespace["f"], 30)) or "") <= MAX_TRACE


def test_a_trace_passes_the_redactor(shop: ModuleType) -> None:
    """A secret in a source line, or in a file's name, is taken out, also where the text is cut."""
    code = f"def f():\n    raise ValueError('{SECRET}')\n"
    file = Path(shop.__file__ or "").with_name("leaky_code.py")
    file.write_text(code)
    namespace: dict[str, Any] = {}
    exec(compile(code, str(file), "exec"), namespace)
    error = raised(namespace["f"])
    assert SECRET in (trace_of(error) or "")
    assert SECRET not in (trace_of(error, lambda text: text.replace(SECRET, "[secret]")) or "")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of errors are new in Python 3.11")
def test_of_a_group_of_errors_the_first_is_told(shop: ModuleType) -> None:
    """A task group says nothing of where its tasks failed; its first error does."""
    inner = raised(shop.charge, "amex")

    def act() -> None:
        raise ExceptionGroup("several", [inner, ValueError()])  # type: ignore[list-item]  # noqa: F821

    error = raised(act)
    assert group_of(error) == "ExceptionGroup of KeyError in till_shop.charge"
    assert "in charge" in (trace_of(error) or "")


# -- where they are told -----------------------------------------------------------------------


class Faulty(Connector):
    """A connector with a bug in its action."""

    key = "faulty"

    @action
    def post(self, text: str) -> None:
        """Fail."""
        {}[text]


class Unmade(Connector):
    """A connector with a bug in its constructor."""

    key = "unmade"

    def __init__(self, config: Any, *, ctx: Any) -> None:
        {}["missing"]

    @action
    def post(self) -> None:
        """Do nothing."""


def test_a_bug_under_invoke_tells_where(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """The exception has a trace and a group, the log has it at ERROR, and no secret is in either."""

    @kernel.action("do.it")
    def act(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(AutomateError) as caught:
        kernel.invoke("do.it", {"text": "$secret:TOKEN"})
    error = caught.value
    assert 'test_tracebacks.py"' in (error.trace or "")
    assert "in act" in (error.trace or "")
    assert (error.group or "").startswith("KeyError in ")
    assert error.__cause__ is None
    (record,) = (r for r in caplog.records if r.name == invoker_logger.name)
    shown = logging.Formatter().format(record)
    assert "in act" in shown
    printed = "".join(traceback.format_exception(error))
    if sys.version_info >= (3, 11):
        assert "raise KeyError(text)" in printed
    assert SECRET not in f"{error.trace}{error}{shown}{printed}"


def test_a_bug_of_a_connector_tells_where(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """In its action and in its constructor, under `invoke` and where it is asked for."""
    kernel.plugins.register(Faulty)
    kernel.plugins.register(Unmade)
    for call, place in (
        (lambda: kernel.invoke("faulty.post", {"text": "x"}), "Faulty.post"),
        (lambda: kernel.invoke("unmade.post"), "Unmade.__init__"),
        (lambda: kernel.connector("unmade"), "Unmade.__init__"),
    ):
        caplog.clear()
        with pytest.raises(AutomateError) as caught:
            call()
        assert f"in {place.split('.')[1]}\n" in (caught.value.trace or "")
        assert caught.value.group == f"KeyError in {__name__}.{place}"
        assert any(
            record.levelno == logging.ERROR and place.split(".")[1] in (record.exc_text or "")
            for record in caplog.records
        )
    with pytest.raises(ConfigError):
        kernel.connector("unmade")


def test_a_bug_of_an_async_action_tells_where(kernel: Kernel) -> None:
    """`ainvoke` tells as much as `invoke`."""

    @kernel.action("do.it")
    async def act() -> None:
        raise KeyError("missing")

    with pytest.raises(AutomateError) as caught:
        asyncio.run(kernel.ainvoke("do.it"))
    assert "in act" in (caught.value.trace or "")
    with pytest.raises(AutomateError) as timed:
        kernel.invoke("do.it", timeout=10)
    assert "in act" in (timed.value.trace or "")


def test_a_bug_of_a_handler_tells_where(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """The item keeps it with the attempt, and the log shows it; what it called in turn too."""

    @kernel.action("do.it")
    def act() -> None:
        raise KeyError("missing")

    @kernel.handler("work")
    def handle(item: Any) -> None:
        kernel.invoke("do.it")

    item_id = kernel.outbox.enqueue("work", max_attempts=1)
    kernel.run_until_idle()
    (attempt,) = kernel.outbox.failed_attempts(item_id)
    trace = attempt.trace or ""
    assert trace.index("in act") < trace.index("which led to") < trace.index("in handle")
    assert attempt.error_group.startswith("KeyError in ")
    assert any(
        r.levelno == logging.ERROR and "in handle" in (r.exc_text or "") for r in caplog.records
    )


def test_the_trace_is_in_a_json_log(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """In the field where a traceback stands, in one line."""
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logging(kernel, level="warning", stream=sys.stdout)

        @kernel.handler("work")
        def handle(item: Any) -> None:
            {}["missing"]

        kernel.outbox.enqueue("work", max_attempts=1)
        kernel.run_until_idle()
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert 'in handle\n    {}["missing"]' in json.loads(line)["exception"]


def test_a_bug_of_a_filter_tells_where(kernel: Kernel) -> None:
    """Without source lines: the engine of templates knows no secret that could stand in one."""

    @kernel.filter("shout")
    def shout(text: str) -> str:
        raise KeyError(text)

    kernel.action("do.it")(_echo)
    step = {"id": "a", "action": "do.it", "input": {"text": "{{ 'x' | shout }}"}}
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})
    (attempt,) = kernel.executions.failed_attempts(kernel.run("w").id)
    assert attempt.error_group.startswith(f"KeyError in {__name__}.")
    assert "in shout" in (attempt.trace or "")
    assert "raise" not in (attempt.trace or "")
    # What a built-in one can't do with what it was given is no bug of its author's.
    step["input"] = {"text": "{{ 'x' | round }}"}
    kernel.add_workflow({"name": "v", "trigger": {"type": "manual"}, "steps": [step]})
    (attempt,) = kernel.executions.failed_attempts(kernel.run("v").id)
    assert (attempt.error_group, attempt.trace) == ("TemplateError", None)


def _echo(text: str) -> str:
    return text


def test_a_bug_of_a_secrets_backend_tells_where() -> None:
    """Its text is not shown, for it may hold a token; the place is."""

    class Vault(SecretsBackend):
        """A backend with a bug."""

        def get_secret(self, key: str) -> str:
            """Fail."""
            return str({SECRET: 1}["missing"])

    with Kernel(discover=False, secrets=[Vault()]) as kernel:
        kernel.action("do.it")(_echo)
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("do.it", {"text": "$secret:KEY"})
    assert (caught.value.group or "").endswith("Vault.get_secret")
    assert "in get_secret" in (caught.value.trace or "")
