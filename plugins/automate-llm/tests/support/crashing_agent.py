"""
Agents in a process that kills itself: before or after the commit of a given number, before the
first commit after an answer of a given number, after a part of an answer was shown, or in a tool.

    python crashing_agent.py URL FOLDER SHAPE WHEN EVERY [SERVER]

SHAPE is what the agent stands in: a workflow of its own (``alone``), two runs side by side
(``gather``), or a sub-workflow (``child``); or what it has: tools of an MCP server that is its
process (``mcp``), of one that outlives it (``http``), tools that a person approves (``approved``),
answers that are shown while they come (``stream``), a handler of events (``events``), tools that are
made for each request (``dynamic``), or an agent that gives it the work (``nested``). WHEN is ``before`` or ``after`` a commit,
``answer``, ``part``, or in a call of a tool: ``tool`` or, of the idempotent one, ``find``. It forks a child for each place to die at, and one that finishes
the work, an hour later by its clock; and writes the places to `FOLDER/result.json`. Of the places
each EVERY-th is tried. A child that has nothing left to die at is the last. Each has a database of
its own: a SQLite file, or one on the PostgreSQL server at SERVER.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
from pydantic_ai import Agent, FunctionToolset, RunContext
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.toolsets import DynamicToolset

from automate_kernel import Call, Kernel, WorkflowContext
from automate_llm import AutomateDurability, OperationToolset, run_agent
from automate_kernel.workflows.drive.driver import ExecutionDriver
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(Path(__file__).parents[4] / "tests" / "support")]
from llm_support import scripted_model  # noqa: E402
from mortal_process import die, ends  # noqa: E402
from refund_desk import find_order, refund_order  # noqa: E402
from waiting import until  # noqa: E402

SERVER = HERE / "refund_desk.py"
MAIN = os.getpid()
OVER_MCP = ("mcp", "http", "approved")
ORDERS = {"gather": [7, 8]}
"""The orders that are refunded, one by each run of the agent."""


def server() -> str | None:
    return sys.argv[6] if len(sys.argv) > 6 else None


def database_of(folder: Path) -> sa.URL | str:
    """The database of the agents in *folder*."""
    if (url := server()) is None:
        return f"sqlite:///{folder / 'run.sqlite3'}"
    return sa.make_url(url).set(database=_name_of(folder))


def _name_of(folder: Path) -> str:
    return f"agents_{MAIN}_{folder.name.replace('-', '_')}"


def on_server(*statements: str) -> None:
    """Do this on the server, by a connection that no child inherits."""
    if (url := server()) is None:
        return
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for each in statements:
            connection.exec_driver_sql(each)


class Mortal:
    """A process that dies at *place*, the kind and its number."""

    def __init__(self, place: tuple[str, int] | None) -> None:
        self.place = place
        self.seen = {"commits": 0, "answers": 0, "parts": 0}
        self._shown = threading.Event()

    def watch(self, engine: sa.Engine) -> None:
        """Die at commits to *engine*, and at reports of progress."""
        own, report = engine.dialect.do_commit, Call.progress

        def begin_commit() -> None:
            self.seen["commits"] += 1
            # Whichever thread's it is: the answer that has come is in no commit yet.
            if self.place in {("before", self.seen["commits"]), ("answer", self.seen["answers"])}:
                die()

        def end_commit() -> None:
            if threading.current_thread().name == "automate-progress":
                self._shown.set()
            if self.place == ("after", self.seen["commits"]):
                die()

        def commit(connection: Any) -> None:
            begin_commit()
            own(connection)
            end_commit()

        def alone(then: Callable[[], None]) -> Callable[..., None]:
            def look(connection: sa.Connection, _cursor: Any, sql: str, *_: Any) -> None:
                driver: Any = connection.connection.driver_connection
                if driver.autocommit and not sql.lstrip().upper().startswith("SELECT"):
                    then()

            return look

        if engine.dialect.name == "postgresql":  # where one statement commits by itself
            sa.event.listen(engine, "before_cursor_execute", alone(begin_commit))
            sa.event.listen(engine, "after_cursor_execute", alone(end_commit))

        def progress(call: Call, *given: Any) -> None:
            self.seen["parts"] += 1
            last = self.place == ("part", self.seen["parts"])
            if last:
                self._shown.clear()
            report(call, *given)
            if last:
                self._shown.wait(10)
                die()

        engine.dialect.do_commit = commit  # type: ignore[method-assign]
        Call.progress = progress  # type: ignore[method-assign]

    def counted(self, url: str) -> WrapperModel:
        """The model behind *url*, whose answers are counted."""
        seen = self.seen

        class Counted(WrapperModel):
            async def request(self, *given: Any) -> ModelResponse:
                answer = await super().request(*given)
                seen["answers"] += 1
                return answer

        return Counted(scripted_model(url))


def agent_of(kernel: Kernel, folder: Path, shape: str, mortal: Mortal, url: str) -> Agent:
    durability = AutomateDurability(
        kernel,
        stream=shape == "stream",
        event_stream_handler=looking if shape == "events" else None,
    )
    tools: list[Any] = [toolset_of(kernel, folder, shape, mortal)]
    if shape == "dynamic":
        (made,) = tools
        tools = [DynamicToolset(lambda _: made, id="made")]
    model = mortal.counted(url)
    return Agent(model, name="clerk", toolsets=tools, capabilities=[durability])


async def looking(_: Any, events: AsyncIterable[Any]) -> None:
    """Handle events by reading them."""
    async for _event in events:
        pass


def toolset_of(kernel: Kernel, folder: Path, shape: str, mortal: Mortal) -> Any:
    if shape in OVER_MCP:
        from automate_mcp import McpProvider

        kernel.register(McpProvider, key="desk")
        return OperationToolset(kernel, ["desk.find", "desk.refund"])
    tools: FunctionToolset[Any] = FunctionToolset()

    @tools.tool_plain(metadata={"idempotent": True})
    def desk_find(number: int) -> str:
        return find_order(folder, number, die if mortal.place == ("find", 1) else None)

    @tools.tool_plain
    def desk_refund(number: int) -> str:
        return refund_order(folder, number, die if mortal.place == ("tool", 1) else None)

    return tools


def boss_of(kernel: Kernel, clerk: Agent) -> Agent:
    """An agent whose only tool is *clerk*, which works in the workflow as it does."""

    def answer(messages: list[Any], _: Any) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("delegate", {"task": messages[0].parts[0].content})])
        return ModelResponse([TextPart(str(messages[-1].parts[0].content))])

    durability = [AutomateDurability(kernel)]
    boss = Agent(FunctionModel(answer), name="boss", capabilities=durability)

    @boss.tool(metadata={"automate": False})
    async def delegate(ctx: RunContext[None], task: str) -> str:
        return (await clerk.run(task, usage=ctx.usage)).output

    return boss


def make(
    folder: Path, url: str, shape: str, place: tuple[str, int] | None, clock: Any = None
) -> Kernel:
    """A kernel whose process dies at *place*, the kind and its number."""
    engine = sa.create_engine(database_of(folder))
    hints = {"find": {"read_only": True}, "refund": {"destructive": shape == "approved"}}
    server = {**reached(folder, shape, place), "tools": ["*"], "hints": hints}
    storage = SqlAlchemyStorage(engine, clock=clock)
    kernel = Kernel(storage, discover=False, config={"desk": server})
    mortal = Mortal(place)
    agent = agent_of(kernel, folder, shape, mortal, url)
    if shape == "nested":
        agent = boss_of(kernel, agent)

    async def refunded(ctx: WorkflowContext, number: int) -> str:
        return (await run_agent(ctx, agent.run(f"refund order {number}"))).output

    @kernel.workflow
    async def refunding(ctx: WorkflowContext, number: int) -> str:
        return await refunded(ctx, number)

    @kernel.workflow
    async def desk(ctx: WorkflowContext) -> list[str]:
        if shape == "child":
            return [await ctx.child(refunding, 7)]
        orders = ORDERS.get(shape, [7])
        if len(orders) == 1:
            return [await refunded(ctx, orders[0])]
        return list(await ctx.gather(*[refunded(ctx, order) for order in orders]))

    # On a busy machine a call is slow enough for a row that it runs: a commit without an answer.
    ExecutionDriver._show_later = lambda *_: None  # type: ignore[method-assign]
    if place is not None:
        mortal.watch(engine)
    return kernel


def deadly(place: tuple[str, int] | None) -> dict[str, str]:
    """The environment of a server that kills who calls a tool, if *place* is in that call."""
    tools = {("tool", 1): "refund", ("find", 1): "find"}
    return {"DEADLY": tools[place]} if place in tools else {}


def reached(folder: Path, shape: str, place: tuple[str, int] | None) -> dict[str, Any]:
    """How the server of MCP is reached."""
    if shape == "http":
        if place is not None:
            (folder / "asking").write_text(str(os.getpid()))
        # Who only starts the execution calls nothing.
        port = (folder / "port").read_text() if (folder / "port").exists() else "9"
        return {"url": f"http://127.0.0.1:{port}/mcp"}
    command = {"command": sys.executable, "args": [str(SERVER)], "cwd": str(folder)}
    return {**command, "env": deadly(place)}


@contextmanager
def serving(folder: Path, shape: str, place: tuple[str, int]) -> Iterator[None]:
    """Have a server of MCP run that outlives its clients, if the shape has one."""
    if shape != "http":
        yield
        return
    command, environment = [sys.executable, str(SERVER), "http"], {**os.environ, **deadly(place)}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        until((folder / "port").exists)
        yield
    finally:
        process.kill()
        process.wait()


def approve(kernel: Kernel) -> None:
    """Let a person approve all calls that wait for it."""
    for each in kernel.approvals.pending().approvals:
        kernel.approvals.approve(each.execution_id, each.step_id, by="ann")


def create(folder: Path, url: str, shape: str) -> None:
    """Start the execution, in a database of its own."""
    folder.mkdir()
    kernel = make(folder, url, shape, None)
    kernel.storage.create_tables()  # type: ignore[attr-defined]
    kernel.start("desk", idempotency_key="one")


def told_of(kernel: Kernel) -> dict[str, Any]:
    """What there is to see of the executions."""
    found = [kernel.executions.get(each.id) for each in kernel.executions.find()]
    (main,) = [each for each in found if each.workflow == "desk"]
    return {
        "status": main.status.value, "error": main.error, "output": main.output,
        "steps": [[run.step_id for run in each.steps] for each in found],
        "saved": [
            run.step_id for each in found for run in each.steps if run.status.value == "COMPLETED"
        ],
        "shown": {
            run.step_id: run.progress["value"]
            for each in found for run in each.steps if run.progress
        },
    }  # fmt: skip


def one(folder: Path, url: str, shape: str, place: tuple[str, int]) -> bool:
    """Die at *place*, and finish in another process; False if it came to its end before that."""

    def begin() -> None:
        kernel = make(folder, url, shape, place)
        kernel.run_until_idle()
        approve(kernel)
        kernel.run_until_idle()

    def finish() -> None:
        # Leases of the dead end, and retries are due, without a wait.
        clock = FakeClock(datetime.now(timezone.utc) + timedelta(hours=1))
        with make(folder, url, shape, None, clock) as kernel:
            told = {"before": told_of(kernel)}
            for _ in range(20):
                kernel.run_until_idle()
                approve(kernel)
                (execution,) = kernel.executions.find(workflow="desk")
                if execution.status.finished:
                    break
                clock.advance(60)
            told["after"] = told_of(kernel)
        (folder / "told.json").write_text(json.dumps(told))

    ended = ends(begin)
    if not ends(finish):
        raise SystemExit("what finishes the work was killed")
    return not ended


def main() -> None:
    url, folder, shape, when = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    started, places = folder / "started", []
    # They import much, here once for all children.
    scripted_model(url)
    if shape in OVER_MCP:
        import automate_mcp.provider
        import mcp  # noqa: F401
    anyio.run(anyio.sleep, 0)
    gc.freeze()  # else each child's collector copies all of it
    on_server(f"CREATE DATABASE {_name_of(started)}")
    ends(lambda: create(started, url, shape))
    for number in range(1, 2 if when in ("tool", "find") else 100, int(sys.argv[5])):
        base = f"{url.removesuffix('/v1')}/{when}-{number}/v1"
        places.append(number)
        place = folder / f"{when}-{number}"
        shutil.copytree(started, place)
        name = _name_of(place)
        on_server(f"CREATE DATABASE {name} TEMPLATE {_name_of(started)}")
        with serving(place, shape, (when, number)):
            died = one(place, base, shape, (when, number))
        on_server(f"DROP DATABASE {name} WITH (FORCE)")
        if not died:
            break
    on_server(f"DROP DATABASE {_name_of(started)} WITH (FORCE)")
    (folder / "result.json").write_text(json.dumps(places))


if __name__ == "__main__":
    main()
