"""Hostile values in the texts that the kernel writes, and the suite itself."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
import yaml

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.logs import JsonFormatter, TextFormatter
from automate_kernel.monitoring.prometheus import _labelled
from automate_kernel.secrets.logs import RedactingFilter
from automate_kernel.storage.values import text_problem
from automate_testing import HOSTILE_VALUES, HostileValuesContract
from automate_kernel.workflows.definition.document import dump_yaml, read_yaml


class TestLogLines(HostileValuesContract):
    """Each record is a line of JSON, or a line of text with indented ones below it."""

    places = ("message", "argument", "extra", "error")
    accepts = dict.fromkeys(places, set(HOSTILE_VALUES))

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        given: dict[str, Any] = {
            "name": "shop",
            "level": logging.INFO,
            "pathname": "x",
            "lineno": 1,
        }
        given |= {"msg": "here: %s", "args": ("x",), "exc_info": None}
        match place:
            case "message":
                given |= {"msg": value, "args": ()}
            case "argument":
                given["args"] = (value,)
            case "error":
                given["exc_info"] = (ValueError, ValueError(value), None)
        record = logging.LogRecord(**given)
        if place == "extra":
            record.order = value
        kernel = Kernel(discover=False)
        RedactingFilter(kernel.redactor).filter(record)
        text = TextFormatter("%(message)s").format(record)
        first, *rest = text.split("\n")
        assert all(line.startswith(" ") for line in rest)
        assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]*", text)
        line = JsonFormatter().format(record)
        assert len(line.splitlines()) == 1
        line.encode()
        return None, sorted(json.loads(line))

    def same(self, place: str, value: str, arrived: Any) -> bool:
        return True


class TestMetrics(HostileValuesContract):
    """A label is read by Prometheus as it was, and ends no line."""

    places = ("label",)
    accepts = {"label": set(HOSTILE_VALUES)}

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        written = _labelled({"kind": value, "state": "x"})
        assert "\n" not in written
        found = re.fullmatch(r'\{kind="((?:[^"\\\n]|\\.)*)",state="x"\}', written, re.DOTALL)
        assert found is not None
        unescaped = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], found[1])
        return unescaped, None


class TestYaml(HostileValuesContract):
    """What we write is read back by us, and by a reader of YAML 1.1."""

    places = ("value", "key", "in a list")

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        if text_problem(value):
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "no definition has such text")
        document: Any = {"a": 1, "b": value, "c": [2]}
        if place == "key":
            document = {"a": 1, "b": {value: 1}, "c": [2]}
        elif place == "in a list":
            document = {"a": 1, "b": [value, "x"], "c": [2]}
        text = dump_yaml(document)
        (ours,) = read_yaml(text)
        assert ours.value == document
        found = yaml.safe_load(text)
        got = found.pop("b")
        return (got if place == "value" else next(iter(got))), found


# The suite itself -------------------------------------------------------------------------------


class Lines:
    """A protocol of lines, ``name: value``, as a plugin might write it."""

    def write(self, value: str) -> str:
        return f"Name: {value}\nEnd: 1\n"


class LinesContract(HostileValuesContract):
    places = ("name",)
    write = staticmethod(Lines().write)

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        lines = [line.split(": ", 1) for line in self.write(value).split("\n") if line]
        return lines[0][1], lines[1:]


def refused(
    value: str, code: ErrorCodes = ErrorCodes.INVALID_ARGUMENT, **more: Any
) -> AutomateError:
    return AutomateError(code, "it can't stand in a line", **more)


def careful(value: str) -> str:
    if "\n" in value or not value:
        raise refused(value)
    return Lines().write(value)


def stripping(value: str) -> str:
    return careful(value.strip() or "x")


def crashing(value: str) -> str:
    return careful(value.encode().decode())


def retried(value: str) -> str:
    if "\n" in value or not value:
        raise refused(value, ErrorCodes.UNAVAILABLE)
    return careful(value)


def talkative(value: str) -> str:
    if "\n" in value or not value:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"{value} \x1b can't stand in a line")
    return careful(value)


def check(write: Any, **more: Any) -> None:
    contract = type("Contract", (LinesContract,), {"write": staticmethod(write), **more})()
    contract.test_a_harmless_value_arrives()
    contract.test_a_hostile_value_arrives_whole_or_is_refused()
    contract.test_a_mixture_arrives_whole_or_is_refused()


def test_a_plugin_that_refuses_what_it_can_not_carry_passes():
    check(careful)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (Lines().write, "lf: changed what is beside it"),
        (stripping, "leading_blank: arrived as 'a'"),
        (crashing, "high_surrogate: raised UnicodeEncodeError"),
        (retried, "lf: the refusal has the code UNAVAILABLE, retryable=True"),
        (talkative, "lf: the text of the refusal is too long, or can't be printed"),
    ],
    ids=["injectable", "stripping", "crashing", "retried", "talkative"],
)
def test_the_suite_finds_what_is_wrong(write, problem):
    with pytest.raises(AssertionError, match=re.escape(problem)):
        check(write)


def test_the_suite_finds_what_is_refused_for_no_reason():
    def refusing(value: str) -> str:
        if value != "Plain4711":
            raise refused(value)
        return careful(value)

    check(refusing)
    with pytest.raises(AssertionError, match="name: latin: is refused"):
        check(refusing, accepts={"name": {"latin"}})


def test_mixtures_find_what_no_value_alone_does():
    def twice(value: str) -> str:
        return careful(value) if value.count("X-Evil") < 2 else Lines().write("x\nMore: 1")

    LinesContract.write = staticmethod(careful)
    with pytest.raises(AssertionError, match="changed what is beside it"):
        check(twice, mixtures=400)
