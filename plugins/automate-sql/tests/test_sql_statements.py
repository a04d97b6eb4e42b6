"""The reading of statements, and the rule that a workflow writes its queries as they are."""

from __future__ import annotations

import pytest
from automate_kernel import AutomateError
from automate_kernel.monitoring.diagnosis import workflow_problems
from automate_sql.statement import READS, Statement
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "dialect", "parameters"),
    [
        ("SELECT ':a', \"b:c\" -- ;", "postgresql", None),
        ("SELECT :a, ':a'", "mysql", None),
        ("SELECT :a -- of :a", "mysql", None),
        ("SELECT :a /* of :a */", "sqlite", None),
        ("SELECT :a, `:a`", "mysql", None),
        ("SELECT :a, $$:a$$", "postgresql", None),
        ("SELECT :a, ':é'", "sqlite", None),
        ("SELECT /* ; */ :p", "sqlite", {"p"}),
        ("SELECT /* ; */ :p", "mysql", {"p"}),
        ("SELECT /* ; */ :p /* ; */", "mariadb", {"p"}),
        ("SELECT /**/ :p, /* /* ; */ 1 /***/", "sqlite", {"p"}),
        ("SELECT /* /* ; */ :p", "mysql", {"p"}),
        ("SELECT [a;b], :p", "sqlite", {"p"}),
        ("/* ; */ -- ;\n (SELECT :p)", "postgresql", {"p"}),
        ("SELECT 'größe', \"größe\", :p -- größe ;\n", "postgresql", {"p"}),
        ("SELECT 1\r\n, :p\r\n", "sqlite", {"p"}),
        ("SELECT a.E'x'", "postgresql", set()),
        ("SELECT E'a' 'b'", "postgresql", set()),
        ("SELECT a::int, :b FROM x WHERE c = :b;", "postgresql", {"b"}),
        ("SELECT $x$ ; $x$, $$ ; $$ , :p", "postgresql", {"p"}),
        ("SELECT E'\\'; DELETE' , :p", "postgresql", {"p"}),
        ("SELECT '\\'; DELETE', :p", "mysql", {"p"}),
        ("SELECT 1 # ; a\n, :p", "mysql", {"p"}),
        ("SELECT /* ; /* ; */ ; */ :p", "postgresql", {"p"}),
        ("SELECT 'it''s;', `a;b`, :p", "mysql", {"p"}),
        ("SELECT '12:30', a[1:2], \\:x", "postgresql", set()),
        ("select 1 ; ; -- the end", "sqlite", set()),
        ("SELECT /*! ; */ :p", "sqlite", {"p"}),
        ("SELECT 1 --; x\n, :p", "postgresql", {"p"}),
        ("SELECT 1 #; x\n, :p", "mysql", {"p"}),
        ("SELECT `a\\`, :p", "mysql", {"p"}),
        ('SELECT u&"a", :p', "mysql", {"p"}),
        ("SELECT a[x:y], :p", "postgresql", {"p"}),
    ],
)
def test_one_statement_is_read(text, dialect, parameters):
    if parameters is None:
        with pytest.raises(AutomateError, match="looks like a parameter"):
            Statement(text, dialect, allowed=READS)
    else:
        assert Statement(text, dialect, allowed=READS).parameters == parameters


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("SELECT 1; SELECT 2", "sqlite"),
        ("SELECT '\\'; DELETE FROM x; --'", "postgresql"),
        ("SELECT $$a$$; DELETE FROM x", "postgresql"),
        ("SELECT 1 /*! ; DELETE FROM x */", "mysql"),
        ("SELECT 1 /*M! ; DELETE FROM x */", "mariadb"),
        ("SELECT 1 --1; DELETE FROM x", "mysql"),
        ("SELECT 'open", "sqlite"),
        ("SELECT /* open", "sqlite"),
        ("SELECT $a$ open", "postgresql"),
        ("", "sqlite"),
        ("-- nothing", "sqlite"),
        ("SELECT 1\0", "sqlite"),
        ("; DELETE FROM x", "sqlite"),
        ("SELECT /* ; */ 1; DELETE FROM x", "sqlite"),
        ("SELECT /* ; */ 1; DELETE FROM x", "mysql"),
        ("SELECT /* /* */ 1; DELETE FROM x */", "mysql"),
        ("SELECT /* /* */ 1; DELETE FROM x */", "sqlite"),
        ("SELECT /* ; */ 1 /* ; */; DELETE FROM x", "postgresql"),
        ("SELECT [ ; DELETE FROM x ; ]", "postgresql"),
        ("SELECT [ ; DELETE FROM x ; ]", "mysql"),
        ("SELECT ` ; DELETE FROM x ; `", "postgresql"),
        ("SELECT 1 --\r; DELETE FROM x", "postgresql"),
        ("SELECT é", "postgresql"),
        ("SELECT\u00a01", "mysql"),
        ("SELECT 1 --\u00a0; DELETE FROM x", "mysql"),
        ("SELECT '\ud800'", "sqlite"),
        ("SELECT '\x1b'", "sqlite"),
        ("SELECT E'a'\n'\\'; DELETE FROM x; --'", "postgresql"),
        ('SELECT U&"a"', "postgresql"),
        ('SELECT u&"a"', "postgresql"),
        ("SELECT E'a' -- b\n'\\'; DELETE FROM x; --'", "postgresql"),
        ("SELECT e'\\'; DELETE FROM x; --'", "sqlite"),
        ("SELECT 1 # 2; DELETE FROM x", "postgresql"),
        ("SELECT :p$x$; DELETE FROM x; $x$", "postgresql"),
        ("SELECT $$a$$$$; DELETE FROM x; $$", "postgresql"),
        ("SELECT $x$; DELETE FROM x; $x$", "mysql"),
        ("SELECT '\x0b'", "sqlite"),
        ("SELECT '\x0c'", "sqlite"),
        ("SELECT '\x7f'", "sqlite"),
        ("SELECT '\x85'", "sqlite"),
        (":SELECT 1", "sqlite"),
        ("'SELECT' 1", "sqlite"),
        ("[SELECT] 1", "sqlite"),
        ("+ SELECT 1", "sqlite"),
    ],
)
def test_more_than_one_statement_is_refused(text, dialect):
    with pytest.raises(AutomateError) as caught:
        Statement(text, dialect, allowed=READS)
    assert not caught.value.retryable


@pytest.mark.parametrize("text", ["SELECT 1", "-- a\n SELECT 1 ; -- b", "/* ; */ SELECT 1 ;;\n"])
def test_the_statement_alone_is_sent(text):
    """A server may take what is around it for more."""
    assert Statement(text, "sqlite", allowed=READS).bind({}).text == "SELECT 1"


def test_a_statement_has_a_bounded_length():
    assert Statement("SELECT 1".ljust(100_000), "sqlite", allowed=READS)
    with pytest.raises(AutomateError, match="more than 100,000 characters"):
        Statement("SELECT 1".ljust(100_001), "sqlite", allowed=READS)


def test_rows_come_in_parts_where_the_server_can_do_so():
    streamed = {word for word in READS if Statement(f"{word} 1", "mysql", allowed=READS).streams}
    assert streamed == {"SELECT", "WITH", "VALUES", "TABLE"}


def test_a_list_stands_for_its_elements_after_in_alone():
    statement = Statement("SELECT 1 WHERE a in :a AND b = ANY(:b)", "postgresql", allowed=READS)
    clause = statement.bind({"a": [1, 2], "b": [3]})
    found = {name: (bind.value, bind.expanding) for name, bind in clause._bindparams.items()}
    assert found == {"a": ([1, 2], True), "b": ([3], False)}
    with pytest.raises(AutomateError, match="'a' follows IN, and is no list"):
        statement.bind({"a": 1, "b": [3]})


@given(st.text(max_size=60), st.sampled_from(["postgresql", "mysql", "sqlite", "mssql"]))
def test_any_text_is_read_or_refused(text, dialect):
    """Nothing else is raised, and what is taken ends before a second statement."""
    try:
        Statement(f"SELECT {text}", dialect, allowed=READS)
    except AutomateError:
        pass


@given(st.text(alphabet="ab;:'\"-/*\\ ", max_size=20))
def test_a_quoted_text_hides_nothing(text):
    quoted = text.replace("'", "''")
    try:
        Statement(f"SELECT '{quoted}'", "postgresql", allowed=READS)
    except AutomateError as error:
        assert "looks like a parameter" in str(error)
    with pytest.raises(AutomateError):
        Statement(f"SELECT '{quoted}'; DELETE FROM x", "postgresql", allowed=READS)


def test_parameters_must_be_those_of_the_statement():
    statement = Statement("SELECT :a, :b", "sqlite", allowed=READS)
    for given_, problem in (
        ({"a": 1}, "parameters without a value: b"),
        ({"a": 1, "b": 2, "c": 3}, "has no parameters c"),
        ({"a": 2**63, "b": 1}, "doesn't fit 64 bits"),
        ({"a": -(2**63) - 1, "b": 1}, "doesn't fit 64 bits"),
    ):
        with pytest.raises(AutomateError, match=problem):
            statement.bind(given_)
    assert statement.bind({"a": 2**63 - 1, "b": -(2**63)}) is not None


def workflow(query):
    return {
        "name": "find",
        "trigger": {"type": "manual"},
        "steps": [
            {
                "id": "find",
                "action": "sql.query",
                "input": {"query": query, "params": {"name": "{{ event.payload.name }}"}},
            }
        ],
        "output": "{{ steps.find.output.rows }}",
    }


def test_a_query_made_by_a_template_is_refused(sqlite_url, make):
    kernel = make(sqlite_url)
    kernel.add_workflow(workflow("SELECT :name AS name"))
    hostile = {"name": "'; DROP TABLE x; --"}
    assert kernel.run("find", hostile).output == [hostile]
    kernel.add_workflow(
        {**workflow("SELECT '{{ event.payload.name }}' AS a, :name AS b"), "name": "made"}
    )
    execution = kernel.run("made", {"name": "Ada"})
    assert execution.status == "FAILED"
    assert "made by a template" in execution.error
    # Also where the whole input is one.
    whole = {**workflow("x"), "name": "whole"}
    whole["steps"][0]["input"] = "{{ event.payload }}"
    kernel.add_workflow(whole)
    execution = kernel.run("whole", {"query": "SELECT 1", "params": {}})
    assert "made by a template" in execution.error


def test_a_query_made_by_a_template_is_found_before_it_runs(sqlite_url, make):
    kernel = make(sqlite_url)
    kernel.add_workflow(workflow("SELECT {{ event.payload.name }}"))
    problems = workflow_problems(kernel, next(iter(kernel.workflows.entries())).workflow)
    assert any("without a template" in each for each in problems), problems


def test_another_action_may_give_any_text(sqlite_url, make):
    """It is code that calls the connector, whatever the workflow gives to it."""
    kernel = make(sqlite_url)

    @kernel.action("report.make")
    async def report(query: str) -> list:
        found = await kernel.connector("sql").query(f"SELECT '{query}' AS name", {})
        return found.rows

    step = {"id": "make", "action": "report.make", "input": {"query": "{{ event.payload.name }}"}}
    output = "{{ steps.make.output }}"
    kernel.add_workflow(
        {"name": "made", "trigger": {"type": "manual"}, "steps": [step], "output": output}
    )
    assert kernel.run("made", {"name": "Ada"}).output == [{"name": "Ada"}]


def test_code_may_give_any_text(sqlite_url, make):
    kernel = make(sqlite_url)

    @kernel.workflow
    async def find(ctx, name: str) -> list:
        found = await ctx.call("sql.query", query="SELECT :name AS name", params={"name": name})
        return found["rows"]

    assert kernel.run(find, "Ada").output == [{"name": "Ada"}]
