"""Files with cases of a workflow's test: what passes, what is told of a failure, what is refused."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import WorkflowError
from automate_testing.workflows.case import CaseResult
from automate_testing.workflows.file import find_case_files, load_case_file
from automate_testing.workflows.matching import differences, matches, unmatched
from automate_kernel.workflows import load_workflows

ORDER = """\
name: order
trigger: {type: event, event: order.created, if: event.payload.total > 100}
steps:
  - {id: total, action: orders.total, input: {lines: "{{ event.payload.lines }}"}}
  - id: tell
    action: chat.say
    input: {text: "Order of {{ steps.total.output.total }}"}
    retry: {attempts: 3, delay: 1d, max_delay: 2d, jitter: false}
  - {id: extra, action: chat.say, if: steps.total.output.total > 1000, input: {text: large}}
  - {id: each, action: orders.total, for_each: "{{ event.payload.lines }}", input: {lines: ["{{ item }}"]}}
output: "{{ steps.total.output.total }}"
"""
PREAMBLE = "real: [orders.total]\nreplace: {chat.say: {output: {said: true}}}\ncases:\n"


def make() -> Kernel:
    kernel = Kernel(discover=False)

    @kernel.action("orders.total")
    def total(lines: list[dict[str, int]]) -> dict[str, int]:
        return {"total": sum(line["price"] for line in lines)}

    @kernel.action("chat.say")
    def say(text: str) -> None:
        raise AssertionError("called for real")

    return kernel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "order.yaml").write_text(ORDER)
    return tmp_path


def run(folder: Path, cases: str, preamble: str = PREAMBLE) -> list[CaseResult]:
    file = folder / "order.test.yaml"
    file.write_text(preamble + textwrap.indent(textwrap.dedent(cases), "  "))
    return list(load_case_file(file).run(make))


def problems(folder: Path, case: str, preamble: str = PREAMBLE) -> list[str]:
    """What is otherwise in one case."""
    (result,) = run(folder, case, preamble)
    return result.problems


def test_cases_that_pass(folder: Path) -> None:
    """Calls, outputs, what is skipped, errors of actions, time that passes, an if that refuses."""
    results = run(
        folder,
        """\
        - name: it is told
          payload: {total: 120, lines: [{price: 120}]}
          expect:
            status: COMPLETED
            calls:
              - chat.say: {text: Order of 120}
            skipped: [extra]
            outputs: {total: {total: 120}, each: [{total: 120}]}
            output: 120
        - name: small ones start nothing
          payload: {total: 5}
          expect: {starts: false}
        - name: the chat sleeps for two days
          payload: {total: 120, lines: [{price: 1200}]}
          replace:
            chat.say:
              - {when: {text: Order of 1200}, error: {code: UNAVAILABLE}, times: 2}
          expect:
            attempts: {tell: 3}
            calls_in_any_order:
              - chat.say: {text: large}
              - chat.say: {}
              - chat.say: {text: Order of 1200}
              - chat.say: {text: Order of 1200}
        - name: the chat refuses
          event: {name: order.created, tenant_id: acme, payload: {total: 120, lines: []}}
          replace: {chat.say: {error: {code: NOT_FOUND, message: no channel}}}
          expect: {status: FAILED, error: no channel, error_code: NOT_FOUND, failed: [tell]}
        """,
    )
    assert [result.problems for result in results] == [[], [], [], []]
    assert [result.line for result in results] == [4, 13, 16, 28]


def test_each_difference_is_told(folder: Path) -> None:
    """With the place, what was expected and what came."""
    assert problems(
        folder,
        """\
        - name: all wrong
          payload: {total: 120, lines: [{price: 1200}]}
          expect:
            status: FAILED
            error: boom
            calls:
              - chat.say: {text: Order of 121, channel: a}
            outputs: {tell: {sad: 1}, extra: {said: 1}, each: []}
            output: 5
            skipped: [extra]
            attempts: {tell: 2}
        """,
    ) == [
        "status: expected FAILED, got COMPLETED",
        "error: expected 'boom' in it, got None",
        'calls[0].chat.say.text: expected "Order of 121", got "Order of 1200"',
        'calls[0].chat.say.channel: expected "a", and it is not there (there is text)',
        'calls[1]: not expected: chat.say {"text": "large"}',
        "output: expected 5, got 1200",
        "outputs.tell.sad: expected 1, and it is not there (there is said)",
        "outputs.extra.said: expected 1, got true",
        'outputs.each: expected 0 elements, got 1: [{"total": 1200}]',
        "skipped: expected step 'extra' SKIPPED, got COMPLETED",
        "attempts.tell: expected 2, got 1",
    ]


def test_a_step_that_can_not_be_is_told(folder: Path) -> None:
    """What is expected of it, that it made no attempt say, would hold for ever."""
    found = problems(
        folder,
        """\
        - name: mistyped
          payload: {total: 120, lines: []}
          expect:
            attempts: {extar: 0}
            failed: [tell, "tell.inside"]
            outputs: {nothing: 1}
        """,
    )
    assert found == [
        "outputs: the workflow has no step 'nothing' (it has total, tell, extra, each)",
        "failed: the workflow has no step 'tell.inside' (it has total, tell, extra, each)",
        "attempts: the workflow has no step 'extar' (did you mean 'extra'?)",
    ]


def test_a_call_too_few_is_told(folder: Path) -> None:
    """And an action that is another one."""
    found = problems(
        folder,
        """\
        - name: more
          payload: {total: 120, lines: []}
          expect:
            calls:
              - orders.total: {}
              - chat.say: {text: b}
        """,
    )
    assert found == [
        'calls[0]: expected orders.total {}, got chat.say {"text": "Order of 0"}',
        'calls[1]: expected chat.say {"text": "b"}, and no more calls were made',
    ]


def test_calls_in_any_order_that_were_not_made(folder: Path) -> None:
    """Each expected call needs one of its own."""
    found = problems(
        folder,
        """\
        - name: any
          payload: {total: 120, lines: [{price: 1200}]}
          expect:
            calls_in_any_order:
              - chat.say: {text: large}
              - chat.say: {text: large}
        """,
    )
    assert found == [
        'calls_in_any_order: expected chat.say {"text": "large"}, and no such call was made',
        'calls_in_any_order: not expected: chat.say {"text": "Order of 1200"}',
    ]


def test_what_is_not_replaced_is_not_called(folder: Path) -> None:
    """The default is safe: a forgotten action sends nothing."""
    (found,) = problems(
        folder, "- {name: a, payload: {total: 120, lines: []}}", "real: [orders.total]\ncases:\n"
    )
    assert "the test doesn't replace 'chat.say'" in found
    assert "add it to replace, or to real" in found


def test_all_actions_may_be_real(folder: Path) -> None:
    """`real: true` calls them all."""
    (found,) = problems(
        folder, "- {name: a, payload: {total: 120, lines: []}}", "real: true\ncases:\n"
    )
    assert "called for real" in found


def test_an_event_that_starts_nothing_is_told(folder: Path) -> None:
    """In both directions."""
    assert problems(folder, "- {name: a, payload: {total: 1}}") == [
        "starts: no trigger's condition holds for the event 'order.created'"
    ]
    case = "- {name: a, payload: {total: 200, lines: []}, expect: {starts: false}}"
    assert problems(folder, case) == ["starts: the event starts it, though it is not expected to"]


def test_answers_that_are_used_up(folder: Path) -> None:
    """The error says which call had none."""
    (found,) = problems(
        folder,
        """\
        - name: a
          payload: {total: 120, lines: [{price: 1200}]}
        """,
        "real: [orders.total]\nreplace: {chat.say: {output: 1, times: 1}}\ncases:\n",
    )
    assert 'no answer left of \'chat.say\' for {"text": "large"}' in found


def test_an_answer_sees_the_whole_input(tmp_path: Path) -> None:
    """Also of an action whose field has the name of a parameter of ours."""
    step = "{id: a, action: store.put, input: {data: 1, name: x}}"
    text = f"name: put\ntrigger: {{type: manual}}\nsteps: [{step}]\n"
    (tmp_path / "put.yaml").write_text(text)
    kernel = Kernel(discover=False)

    @kernel.action("store.put")
    def put(data: int, name: str) -> None:
        raise AssertionError("called for real")

    (tmp_path / "put.test.yaml").write_text(
        "replace: {store.put: [{when: {data: 1, name: x}, output: right}, {output: wrong}]}\n"
        "cases: [{name: all, expect: {outputs: {a: right}}}]\n"
    )
    (result,) = load_case_file(tmp_path / "put.test.yaml").run(lambda: kernel)
    assert result.problems == []


def test_events_come_while_it_runs(folder: Path) -> None:
    """Time passes before them."""
    (result,) = run(
        folder,
        """\
        - name: a
          payload: {total: 120, lines: []}
          replace: {chat.say: {error: {code: UNAVAILABLE}, times: 1}}
          then:
            - {after: 1h}
            - {after: 1h, emit: {name: other.event, payload: {a: 1}}}
          expect: {attempts: {tell: 2}}
        """,
    )
    assert result.passed


def test_an_event_that_comes_is_of_the_tenant(tmp_path: Path) -> None:
    """As the workflow waits for its tenant's events alone; another tenant can be named."""
    (tmp_path / "pay.yaml").write_text(
        "name: pay\ntrigger: {type: event, event: order.created}\nsteps:\n"
        "  - {id: paid, wait_for: {event: order.paid, timeout: 1d, on_timeout: continue}}\n"
        'output: "{{ steps.paid.output is not none }}"\n'
    )
    (tmp_path / "pay.test.yaml").write_text(
        """\
        cases:
          - name: its own
            event: {tenant_id: acme}
            then: [{emit: {name: order.paid}}]
            expect: {output: true}
          - name: nobody's
            event: {tenant_id: acme}
            then: [{emit: {name: order.paid, tenant_id: null}}]
            expect: {output: false}
        """
    )
    results = list(load_case_file(tmp_path / "pay.test.yaml").run(lambda: Kernel(discover=False)))
    assert [result.problems for result in results] == [[], []]


def test_people_decide_while_it_runs(tmp_path: Path) -> None:
    """As by an account; a decision that nobody waits for is a problem of the case."""
    (tmp_path / "refund.yaml").write_text(
        textwrap.dedent(
            """\
            name: refund
            trigger: {type: manual}
            steps:
              - id: ok
                approval:
                  title: "Refund?"
                  by: ["role:managers"]
                  form: [{name: amount, type: integer, required: true}]
                  timeout: 2d
                  on_timeout: continue
            output: "{{ steps.ok.output }}"
            """
        )
    )
    (tmp_path / "refund.test.yaml").write_text(
        textwrap.dedent(
            """\
            cases:
              - name: approved
                then:
                  - after: 1h
                    decide: {step: ok, by: kim, roles: [managers], form: {amount: 7}}
                expect: {output: {by: kim, form: {amount: 7}, timed_out: false}}
              - name: nobody decides
                expect: {output: {approved: false, timed_out: true}}
              - name: too late
                then:
                  - after: 3d
                    decide: {step: ok, by: kim, roles: [managers], approved: false}
              - name: not asked
                then: [{decide: {step: ok, by: eve}}]
            """
        )
    )
    file = load_case_file(tmp_path / "refund.test.yaml")
    results = list(file.run(lambda: Kernel(discover=False)))
    assert [one.passed for one in results] == [True, True, False, False]
    assert results[2].problems[0].startswith("then[0].decide: it waits no longer")
    assert "role:managers" in results[3].problems[0]


def test_signals_and_cancellations_come_while_it_runs(tmp_path: Path) -> None:
    """What the workflow could never take is a problem of the case."""
    (tmp_path / "review.yaml").write_text(
        textwrap.dedent(
            """\
            name: review
            trigger: {type: manual}
            steps:
              - {id: verdict, wait_for: {signal: verdict, timeout: 7d}}
              - {id: nap, sleep: 1d}
            on_cancel:
              - {id: regret, action: chat.say, input: {text: "{{ error.code }}"}}
            output: "{{ steps.verdict.output.payload.text }}"
            """
        )
    )
    (tmp_path / "review.test.yaml").write_text(
        textwrap.dedent(
            """\
            replace: {chat.say: {output: null}}
            cases:
              - name: signalled
                then: [{after: 6d, signal: {name: verdict, payload: {text: "yes"}}}]
                expect: {output: "yes", calls: []}
              - name: cancelled
                then: [{signal: {name: verdict, payload: {text: "no"}}}, {after: 1h, cancel: true}]
                expect: {status: CANCELLED, calls: [{chat.say: {text: CANCELLED}}]}
              - name: misspelt
                then: [{signal: {name: verdit}}]
              - name: too late to signal
                then: [{after: 9d, signal: {name: verdict}}]
              - name: too late to cancel
                then: [{after: 9d, cancel: true}]
            """
        )
    )

    def kernel() -> Kernel:
        made = Kernel(discover=False)

        @made.action("chat.say")
        def say(text: str) -> None:
            raise AssertionError("called for real")

        return made

    results = list(load_case_file(tmp_path / "review.test.yaml").run(kernel))
    assert [one.problems for one in results[:2]] == [[], []]
    first = [one.problems[0] for one in results[2:]]
    assert first[0] == (
        "then[0].signal: the workflow waits for no signal 'verdit' (did you mean 'verdict'? it has verdict)"
    )
    assert first[1].startswith("then[0].signal: ") and "has ended" in first[1]
    assert first[2] == "then[0].cancel: the execution had ended"


def reserve(sku: str) -> str:
    raise AssertionError("called for real")


def label(place: str) -> str:
    return f"to {place}"


def test_functions_that_a_workflow_in_code_calls(tmp_path: Path) -> None:
    """They are named as the error of their step names them: with their module."""

    def flows() -> Kernel:
        kernel = make()

        @kernel.workflow
        async def shipping(ctx: WorkflowContext, sku: str) -> str:
            return await ctx.step(label, await ctx.step(reserve, sku))

        return kernel

    def run_with(preamble: str) -> list[str]:
        file = tmp_path / "flows.test.yaml"
        case = (
            "cases: [{name: a, payload: tea, expect:"
            f" {{output: to 7, calls: [{{{__name__}.reserve: {{sku: tea}}}}]}}}}]\n"
        )
        file.write_text(f"workflow: shipping\n{preamble}{case}")
        (result,) = load_case_file(file).run(flows)
        return result.problems

    answer = f"replace: {{{__name__}.reserve: {{output: '7'}}}}\n"
    assert run_with(f"real: [{__name__}.label]\n{answer}") == []
    assert f"doesn't replace '{__name__}.label'" in run_with(answer)[0]
    (problem,) = run_with(f"real: [{__name__}.lable]\n{answer}")
    assert f"there is no action '{__name__}.lable'" in problem


def test_a_case_that_does_not_end_says_where_it_waits(tmp_path: Path) -> None:
    (tmp_path / "ask.yaml").write_text(
        "name: ask\ntrigger: {type: manual}\nsteps: [{id: ok, approval: {title: Refund}}]\n"
    )
    (tmp_path / "ask.test.yaml").write_text("cases: [{name: nobody decides}]\n")
    (result,) = load_case_file(tmp_path / "ask.test.yaml").run(lambda: Kernel(discover=False))
    assert list(result.problems) == ["status: expected COMPLETED, got RUNNING (it waits in ok)"]


def test_steps_that_repeat_are_compared_as_templates_see_them(tmp_path: Path) -> None:
    """A list has all outputs, also an empty one; a loop has that of its last round."""
    (tmp_path / "many.yaml").write_text(
        textwrap.dedent(
            """\
            name: many
            trigger: {type: manual}
            steps:
              - {id: each, action: chat.say, for_each: "{{ event.payload }}", input: {text: a}}
              - {id: poll, action: chat.say, until: "{{ output.done }}", input: {text: b}}
              - id: block
                for_each: "{{ event.payload }}"
                concurrency: 2
                steps:
                  - {id: ok, approval: {title: "{{ item }}?", timeout: 1d, on_timeout: continue}}
                output: "{{ steps.ok.output.by }}"
            output: {each: "{{ steps.each.output }}", poll: "{{ steps.poll.output }}"}
            """
        )
    )
    (tmp_path / "many.test.yaml").write_text(
        textwrap.dedent(
            """\
            replace:
              chat.say:
                - {when: {text: b}, output: {done: false}, times: 2}
                - {when: {text: b}, output: {done: true}}
                - {output: said}
            cases:
              - name: some
                payload: [1, 2]
                then: [{decide: {step: "block[1].ok", by: ann}}]
                expect:
                  output: {each: [said, said], poll: {done: true}}
                  outputs: {each: [said, said], poll: {done: true}, block: [null, ann]}
                  attempts: {each: 2, poll: 3, "block[0].ok": 0}
              - name: none
                payload: []
                expect: {outputs: {each: [], block: []}, attempts: {each: 0}}
              - name: nobody is asked so
                payload: [1]
                then: [{decide: {step: block, position: 0, by: ann}}]
              - name: no step of the execution
                payload: [1]
                expect: {attempts: {block.ok: 1}}
            """
        )
    )
    file = load_case_file(tmp_path / "many.test.yaml")

    def make_kernel() -> Kernel:
        kernel = Kernel(discover=False)

        @kernel.action("chat.say")
        def say(text: str) -> None:
            raise AssertionError("called for real")

        return kernel

    assert [one.problems for one in file.run(make_kernel)] == [
        [], [],
        ["then[0].decide: step 'block' waits for no decision at position 0 (those that wait:"
         " block[0].ok)"],
        ["attempts: the workflow has no step 'block.ok' (it runs once for each element or round:"
         " block[0].ok is the first)"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("case: []", "order.test.yaml:1: case: there is no such field (did you mean 'cases'?)"),
        ("name: order", "order.test.yaml:1: name: there is no such field (take it out)"),
        ("replace: {a.b: {wen: 1}}", "a.b[0].wen: there is no such field (did you mean 'when'?)"),
        ("cases: []", ":1: cases: must not be empty"),
        ("cases: [{}]", "order.test.yaml:1: cases[0].name: is missing (add it)"),
        ("cases:\n  - name: a\n    expct: {}", ":3: cases[0].expct: there is no such field"),
        (
            "cases:\n  - name: a\n    expect: {calls: [{a.b: {}, c.d: {}}]}",
            ":3: cases[0].expect.calls[0]: a call is one action with its input",
        ),
        (
            "cases:\n  - {name: a, payload: 1, event: {payload: 2}}",
            ":2: cases[0]: it has a payload and an event",
        ),
        (
            "replace: {a.b: {output: 1, error: {}}}\ncases: [{name: a}]",
            ":1: replace.a.b[0]: it has an output and an error",
        ),
        ("cases: {a: 1}", ":1: cases: must be a list (- {name: a large order, payload:"),
        ("cases: [a]", ":1: cases[0]: must be a mapping (- {name: a large order, payload:"),
        ("replace: {a.b: 1}\ncases: [{name: a}]", "replace.a.b[0]: must be a mapping (action: {"),
        (
            "cases:\n  - {name: a, then: [{emit: paid}]}",
            ":2: cases[0].then[0].emit: must be a mapping ({name: order.paid, payload: …})",
        ),
        ("- a", "it must be a mapping"),
        (
            "cases: [{name: a, expect: {starts: false, output: 5}}]",
            "what does not start has no output (take output out)",
        ),
        (ORDER, "it is a workflow, not a file with cases (write its cases in"),
        ("cases: [{name: a}]\n---\ncases: [{name: a}]", "holds 2 documents, not one"),
        ("workflow: ordr.yaml\ncases: [{name: a}]", "did you mean 'order.yaml'"),
    ],
)
def test_wrong_files_are_explained(folder: Path, text: str, problem: str) -> None:
    """Every problem has its line."""
    file = folder / "order.test.yaml"
    file.write_text(text)
    with pytest.raises(WorkflowError) as caught:
        load_case_file(file)
    assert problem in str(caught.value)


def test_without_a_workflow_beside_it(tmp_path: Path) -> None:
    """The remedy is to name one."""
    file = tmp_path / "lonely.test.yaml"
    file.write_text("cases: [{name: a}]")
    with pytest.raises(WorkflowError, match=r"no lonely\.yaml beside it.*add workflow"):
        load_case_file(file)
    with pytest.raises(WorkflowError, match="can't be read"):
        load_case_file(tmp_path / "none.test.yaml")


def test_one_of_several_workflows(tmp_path: Path) -> None:
    """A file with several workflows: each case names its own."""
    (tmp_path / "two.yaml").write_text(
        "\n---\n".join(ORDER.replace("name: order\n", f"name: {name}\n") for name in ("a", "b"))
    )
    file = tmp_path / "two.test.json"
    case = {"name": "x", "payload": {"total": 1}, "expect": {"starts": False}}
    file.write_text(json.dumps({"cases": [{**case, "workflow": "b"}, {**case, "workflow": "c"}]}))
    cases = load_case_file(file)
    assert cases.run_case(0, make()).passed
    with pytest.raises(WorkflowError, match="one of 2 workflows"):
        cases.run_case(1, make())


def test_tests_beside_workflows_are_not_workflows(folder: Path) -> None:
    """A folder loads as before, and its tests are found at any depth."""
    for name in ("order.test.yaml", ".hidden.test.yaml", "_draft.test.yaml"):
        (folder / name).write_text("cases: [{name: a}]")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "deep.test.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.test.yaml").write_text("")
    assert [each.name for each in load_workflows(folder)] == ["order"]
    found = [path.relative_to(folder).as_posix() for path in find_case_files([folder])]
    assert found == ["inner/deep.test.json", "order.test.yaml"]
    assert find_case_files([folder / "any.yaml"]) == [folder / "any.yaml"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@given(JSON, st.dictionaries(st.text(max_size=2), JSON))
def test_a_value_matches_itself_and_with_more_fields(value: Any, more: dict[str, Any]) -> None:
    """What is expected is a part of what comes."""
    assert matches(value, value)
    assert matches({"value": value}, {**more, "value": value})
    if value != more:
        assert list(differences(value, more, "x")) or isinstance(value, dict)


@given(st.lists(st.lists(st.integers(0, 4), max_size=5), max_size=5))
def test_as_many_as_can_be_have_one_of_their_own(fits: list[list[int]]) -> None:
    """Compared with trying every way."""

    def best(row: int, taken: frozenset[int]) -> int:
        if row == len(fits):
            return 0
        ways = [best(row + 1, taken)]
        ways += [1 + best(row + 1, taken | {c}) for c in set(fits[row]) if c not in taken]
        return max(ways)

    assert len(fits) - len(unmatched(fits)) == best(0, frozenset())


PYTEST = """\
pytest_plugins = ["automate_testing.pytest_plugin"]
"""


def test_pytest_collects_each_case(folder: Path) -> None:
    """As a test of its own, with what is otherwise in place of a traceback."""
    import subprocess
    import sys

    (folder / "conftest.py").write_text(PYTEST)
    (folder / "pytest.ini").write_text("[pytest]\nautomate_kernel = shop:make\npythonpath = .\n")
    (folder / "shop.py").write_text(
        "from automate_kernel import Kernel\n"
        "def make():\n"
        "    kernel = Kernel(discover=False)\n"
        "    @kernel.action('orders.total')\n"
        "    def total(lines: list[dict]) -> dict:\n"
        "        return {'total': 0}\n"
        "    @kernel.action('chat.say')\n"
        "    def say(text: str) -> None: ...\n"
        "    return kernel\n"
    )
    (folder / "order.test.yaml").write_text(
        PREAMBLE + "  - {name: good, payload: {total: 120, lines: []}}\n"
        "  - {name: bad, payload: {total: 120, lines: []}, expect: {output: 5}}\n"
    )
    (folder / "broken.test.yaml").write_text("cases: 5")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "order.test.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "output: expected 5, got 0" in done.stdout
    assert "order.test.yaml:5: bad" in done.stdout
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "broken.test.yaml is not valid: 1 problem" in done.stdout
