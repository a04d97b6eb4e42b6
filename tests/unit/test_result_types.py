"""Results of steps and workflows in code: what was returned is what a replay gives."""

from __future__ import annotations

import dataclasses
import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    Optional,
    TypeVar,
    Union,
)
from uuid import UUID

import pytest
from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Kernel,
    StepFailedError,
    WorkflowContext,
    WorkflowError,
)
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
)
from typing_extensions import TypedDict
from defined import define

T = TypeVar("T")


class Color(enum.Enum):
    """An enum of both kinds of values."""

    RED = 1
    BLUE = "blue"


class Size(str, enum.Enum):
    """An enum whose members are text themselves."""

    SMALL = "s"


class Right(enum.Flag):
    """Flags."""

    READ = 1
    WRITE = 2


class Planet(enum.Enum):
    """An enum whose values JSON does not bring back."""

    EARTH = (5.9, 6.3)


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int = 0


class Due(TypedDict):
    """A typed dict."""

    when: date


@dataclasses.dataclass
class Line:
    """A dataclass, with what it finds out itself."""

    when: date
    tags: set[Color]
    total: int = dataclasses.field(init=False, default=3)


@dataclasses.dataclass(eq=False)
class Unequal:
    """A dataclass that compares by identity."""

    when: date


class Pet(BaseModel):
    """A model that has a subclass."""

    name: str


class Dog(Pet):
    """That subclass."""

    bark: int = 1


class Owner(BaseModel):
    """A model with one of the other inside."""

    pet: Pet


class Tree(BaseModel):
    """A model that refers to itself."""

    when: date
    kids: list[Tree] = []


class Dates(RootModel[list[date]]):
    """A model of a list."""


class Box(BaseModel, Generic[T]):
    """A generic model."""

    value: T


class Cat(BaseModel):
    """One choice of a union."""

    kind: Literal["cat"] = "cat"


class Cow(BaseModel):
    """The other one."""

    kind: Literal["cow"] = "cow"


class Unfinished(BaseModel):
    """A model of a type that there is not."""

    part: Part  # type: ignore[name-defined]  # noqa: F821


class Closed(BaseModel):
    """A model that writes more than it takes."""

    model_config = ConfigDict(extra="forbid")
    one: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def two(self) -> int:
        """Twice as many."""
        return self.one * 2


class Private(BaseModel):
    """A model that keeps something for itself."""

    one: int
    _lock: Any = PrivateAttr(default_factory=object)


class Raw(BaseModel):
    """A model with bytes."""

    data: bytes


class Renamed(BaseModel):
    """A model that is written otherwise than it is read."""

    one: int = Field(serialization_alias="One")


class Hidden(BaseModel):
    """A model that is written without what it needs."""

    one: int = Field(exclude=True)


class German(BaseModel):
    """A model whose serializer writes what it does not read."""

    when: date

    @field_serializer("when")
    def write(self, when: date) -> str:
        """Write it for people."""
        return when.strftime("%d.%m.%Y")


class Login(BaseModel):
    """A model that hides a value."""

    password: SecretStr


DAY = date(2026, 5, 4)
Stamp = Annotated[
    datetime,
    PlainSerializer(lambda value: value.timestamp()),
    BeforeValidator(
        lambda value: (
            datetime.fromtimestamp(value, timezone.utc) if isinstance(value, float) else value
        )
    ),
]

KEPT: list[tuple[Any, Any]] = [
    (Color, Color.RED),
    (Color, Color.BLUE),
    (Size, Size.SMALL),
    (Right, Right.READ | Right.WRITE),
    (Literal[Size.SMALL, "x"], Size.SMALL),
    (Point, Point(1, 2)),
    (set[Point], {Point(1), Point(2)}),
    (frozenset[date], frozenset({DAY})),
    (set, {1, 2}),
    (bytes, b"\xff\x00"),
    (dict[str, bytes], {"a": b"\xff"}),
    (dict[int, Color], {1: Color.BLUE}),
    (dict[UUID, int], {UUID(int=5): 1}),
    (dict[Size, int], {Size.SMALL: 1}),
    (Mapping[date, int], {DAY: 1}),
    (Decimal, Decimal("1.50")),
    (UUID, UUID(int=5)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=-1, microseconds=5)),
    (Stamp, datetime(2026, 5, 4, tzinfo=timezone.utc)),
    (Path, Path("/a")),
    (complex, 1j),
    (deque[int], deque([1])),
    (Line, Line(DAY, {Color.RED, Color.BLUE})),
    (Due, {"when": DAY}),
    (Tree, Tree(when=DAY, kids=[Tree(when=DAY)])),
    (Dates, Dates([DAY])),
    (Box[date], Box[date](value=DAY)),
    (Closed, Closed(one=1)),
    (Owner, Owner(pet=Pet(name="Rex"))),
    (list[Color], [Color.RED]),
    (tuple[Color, set[int]], (Color.RED, {1})),
    (Optional[Color], Color.RED),
    (Union[date, str], DAY),
    (Union[date, str], "some day"),
    (Union[int, Decimal], Decimal(1)),
    (Union[int, str, None], "1"),
    (Annotated[Union[Cat, Cow], Field(discriminator="kind")], Cow()),
    (Iterable[int], [1, 2]),
    (Iterable, [1, 2]),
]

CONVERTED: list[tuple[Any, Any, Any]] = [
    (list[int], (1, 2), [1, 2]),
    (str, Size.SMALL, "s"),
    (float, 1, 1.0),
    (dict[str, Any], {"when": DAY}, {"when": "2026-05-04"}),
    (object, DAY, "2026-05-04"),
]

NEVER: list[tuple[Any, str]] = [
    (Planet, "has Planet, whose values do not come back from JSON (give its members text"),
    (Callable[[], int], "has a function, which is not made from JSON"),
    (type[int], "has a class, which is not made from JSON"),
    (list[Iterable[int]], "has an Iterable, which can be read once (write list["),
    (Optional[Iterable[int]], "has an Iterable, which can be read once (write list["),
    (Iterator[int], "Iterator[int], which is not made from JSON (make it a list, and write list["),
    (dict[tuple[int, int], int], "has keys of the type tuple, which JSON has not"),
    (dict[Planet, int], "has keys that do not come back from JSON (JSON has text as keys"),
    (Unfinished, "is not fully defined"),
    (Renamed, "has a field that is written as 'One', and is not read by that name (give 'one'"),
    (list[Renamed], "has a field that is written as 'One'"),
    (Hidden, "is written without its field 'one', which it needs"),
]

LOST: list[tuple[Any, Any, str]] = [
    (Pet, Dog(name="Rex"), "it is a Dog, and comes back as a Pet (write Dog in the annotation"),
    (list[Pet], [Dog(name="Rex")], "[0] is a Dog, and comes back as a Pet"),
    (Owner, Owner(pet=Dog(name="Rex")), "pet is a Dog, and comes back as a Pet"),
    (Union[Color, str], Color.BLUE, "it is a Color, and comes back as a str (write its type in"),
    (Union[date, str], "2026-05-04", "it is a str, and comes back as a date"),
    (Union[list[int], set[int]], {1}, "it is a set, and comes back as a list"),
    (Union[Pet, dict[str, Any]], {"name": "Rex"}, "it is a dict, and comes back as a Pet"),
    (dict[Union[int, str], int], {1: 2}, "it has a key that is not text but int (write the type"),
    (dict, {1: 2}, "it has a key that is not text but int"),
    (dict[str, Any], {"a": Color.RED}, "a is a Color, and comes back as an int"),
    (str, Color.BLUE, "it is a Color, and comes back as a str"),
    (
        German,
        German(when=DAY),
        "what is written for it is not valid: when: Input should be a valid",
    ),
    (
        Login,
        Login(password=SecretStr("hunter22")),
        "password is a SecretStr that comes back as anoth",
    ),
    (
        Raw,
        Raw(data=b"\xff"),
        "it is a Raw with bytes that are no text (set ser_json_bytes and val_",
    ),
    (
        Any,
        {1},
        "it is a set, which JSON has not (write its type in the function's annotation, or ret",
    ),
    (Any, Color.RED, "or return its .value)"),
    (None, Point(1), "or return its ._asdict())"),
    (Any, object(), "it is an object, which JSON has not (return dicts, lists"),
]


def returning(annotation: Any, value: Any, calls: list[Any]) -> Callable[[], Any]:
    def find() -> Any:
        calls.append(1)
        return value

    find.__annotations__["return"] = annotation
    return find


def run(annotation: Any, value: Any, *, child: bool = False) -> tuple[list[Any], str | None, int]:
    """Return the values that a workflow got, in its first run and in a replay, and its error."""
    got, calls = list[Any](), list[Any]()
    find = returning(annotation, value, calls)

    async def below(ctx: WorkflowContext) -> Any:
        return find()

    below.__annotations__["return"] = annotation
    with Kernel(discover=False) as kernel:
        if child:
            kernel.workflow(below)

        @kernel.workflow
        async def twice(ctx: WorkflowContext) -> None:
            got.append(await (ctx.child(below) if child else ctx.step(find)))
            await ctx.sleep(0.001)

        execution = kernel.run(twice, patience=5)
    return got, execution.error, len(calls)


@pytest.mark.parametrize("child", [False, True])
@pytest.mark.parametrize(("annotation", "value"), KEPT)
def test_what_was_returned_comes_back(annotation: Any, value: Any, child: bool) -> None:
    got, error, _ = run(annotation, value, child=child)
    assert error is None
    assert got == [value, value]
    assert [type(each) for each in got] == [type(value)] * 2


@pytest.mark.parametrize(("annotation", "value", "becomes"), CONVERTED)
def test_json_takes_what_it_has_a_type_for(annotation: Any, value: Any, becomes: Any) -> None:
    got, error, _ = run(annotation, value)
    assert error is None
    assert got == [becomes, becomes] and type(got[0]) is type(becomes)


@pytest.mark.parametrize(("annotation", "says"), NEVER)
def test_what_can_not_come_back_is_refused_before_the_call(annotation: Any, says: str) -> None:
    got, error, calls = run(annotation, 1)
    assert says in str(error)
    assert (got, calls) == ([], 0)
    with pytest.raises(WorkflowError, match="the result of workflow 'below'"):
        run(annotation, 1, child=True)


@pytest.mark.parametrize(("annotation", "value", "says"), LOST)
def test_a_value_that_would_be_lost_is_an_error(annotation: Any, value: Any, says: str) -> None:
    got, error, _ = run(annotation, value)
    assert f"the result of find() can't be stored{',' if 'not valid' in says else ':'}" in str(
        error
    )
    assert says in str(error), error
    assert "hunter22" not in str(error)
    assert got == []
    _, error, _ = run(annotation, value, child=True)
    assert says in str(error), error


@pytest.mark.parametrize("annotation", [dict[str, str], list[str], Optional[str]])
def test_half_a_character_fails_what_returned_it_once(annotation: Any) -> None:
    """The turn failed with it, so that the steps before it ran again and again."""
    calls, half = [], "\udcff"
    given = {dict[str, str]: {"name": half}, list[str]: [half]}.get(annotation, half)

    def charge() -> None:
        calls.append(1)

    async def ending(ctx: WorkflowContext) -> Any:
        await ctx.step(charge)
        return given

    ending.__annotations__["return"] = annotation
    with Kernel(discover=False) as kernel:
        execution = kernel.run(kernel.workflow(ending))
    assert (execution.status, execution.error_code) == ("FAILED", "INVALID_ARGUMENT")
    assert calls == [1]


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (int, "five", "Input should be a valid integer"),
        (str, None, "Input should be a valid string"),
        (bool, 1, "Input should be a valid boolean"),
        (list[str], ["a", 2], "1: Input should be a valid string"),
        (Optional[int], 2.5, "Input should be a valid integer"),
        (Color, "green", "Input should be 1 or 'blue'"),
    ],
)
def test_a_value_of_another_type_fails_what_returned_it(
    annotation: Any, value: Any, says: str
) -> None:
    """It was saved as the output of a step that had completed, which no resume called again."""
    given = [value]

    def find() -> Any:
        return given[0]

    find.__annotations__["return"] = annotation
    with Kernel(discover=False) as kernel:

        @kernel.workflow
        async def seeing(ctx: WorkflowContext) -> str:
            try:
                return f"found {await ctx.step(find)}"
            except StepFailedError as error:
                return str(error)

        @kernel.workflow
        async def using(ctx: WorkflowContext) -> None:
            await ctx.step(find)

        async def answer(ctx: WorkflowContext) -> Any:
            return given[0]

        answer.__annotations__["return"] = annotation
        answering = kernel.workflow(answer)

        caught = kernel.run(seeing)
        failed, child = kernel.run(using), kernel.run(answering)
        assert f"the result of find() is not valid: {says}" in caught.output
        assert [(run.step_id, run.status) for run in failed.steps] == [("find", StepStatus.FAILED)]
        assert "the result of workflow 'answer' is not valid" in str(child.error)

        given[0] = {int: 5, bool: True, str: "a"}.get(annotation, None)
        if given[0] is not None:  # the function is corrected
            for execution in (failed, child):
                assert kernel.executions.resume(execution.id)
            kernel.run_until_idle()
            ends = [kernel.executions.get(each.id).status for each in (failed, child)]
            assert ends == [ExecutionStatus.COMPLETED] * 2


def test_what_can_not_be_compared_is_taken() -> None:
    (first, second), error, _ = run(Unequal, Unequal(DAY))
    assert error is None and first.when == second.when == DAY
    (first, second), error, _ = run(list[Private], [Private(one=1)])
    assert error is None and first[0].one == second[0].one == 1


def test_a_function_that_never_returns_is_called() -> None:
    def fail() -> NoReturn:
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "no")

    with Kernel(discover=False) as kernel:

        @kernel.workflow
        async def failing(ctx: WorkflowContext) -> NoReturn:
            await ctx.step(fail)
            raise AssertionError("not reached")

        assert kernel.run(failing).error == "step 'fail' failed: no"


def test_bytes_go_from_step_to_step() -> None:
    """As base64: any bytes are taken, not those alone that are text."""

    def read() -> bytes:
        return b"\xff\x00"

    def length(data: bytes, others: list[bytes]) -> int:
        assert data == others[0] == b"\xff\x00"
        return len(data)

    with Kernel(discover=False) as kernel:

        @kernel.workflow
        async def passing(ctx: WorkflowContext) -> bytes:
            data = await ctx.step(read)
            await ctx.step(length, data, [data])
            return data

        execution = kernel.run(passing)
        assert execution.error is None and execution.output == "_wA="


def test_bytes_go_from_action_to_action() -> None:
    """In a file too: what one returns, in base64, another one takes."""
    with Kernel(discover=False) as kernel:

        @kernel.action("file.read")
        def read() -> bytes:
            return b"\xff\x00 \xfe"

        @kernel.action("file.digest")
        def digest(content: bytes) -> list[int]:
            return list(content)

        define(
            kernel,
            {"id": "read", "action": "file.read"},
            {
                "id": "digest",
                "action": "file.digest",
                "input": {"content": "{{ steps.read.output }}"},
            },
            name="digest",
            output="{{ steps.digest.output }}",
        )
        execution = kernel.run("digest")
        assert execution.error is None and execution.output == [255, 0, 32, 254]
        assert kernel.invoke("file.digest", {"content": "/wA+"}) == [255, 0, 62]
        with pytest.raises(AutomateError, match="base64"):
            kernel.invoke("file.digest", {"content": "no base64!"})


def test_an_action_writes_what_its_annotation_says() -> None:
    """In a file as in code, though only code reads it in that type."""
    with Kernel(discover=False) as kernel:

        @kernel.action("shop.colors")
        def colors() -> set[Color]:
            return {Color.BLUE}

        @kernel.action("shop.pet")
        def pet() -> Pet:
            return Dog(name="Rex")

        @kernel.action("shop.untyped")
        def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN202
            return {Color.BLUE}

        @kernel.workflow
        async def both(ctx: WorkflowContext) -> list[str]:
            assert await ctx.step(colors) == {Color.BLUE}
            return [str(each) for each in await ctx.call("shop.colors")]

        assert kernel.invoke("shop.colors") == ["blue"]
        assert kernel.invoke("shop.pet") == {"name": "Rex", "bark": 1}
        assert kernel.run(both).output == ["blue"]
        with pytest.raises(Exception, match="write its type in the function's annotation, or retu"):
            kernel.invoke("shop.untyped")


def test_a_replaced_function_answers_in_its_type_or_in_json() -> None:
    def color() -> Color:
        raise AssertionError("called for real")

    with Kernel(discover=False) as kernel:

        @kernel.workflow
        async def seeing(ctx: WorkflowContext) -> bool:
            return await ctx.step(color) is Color.BLUE

        for answer in (Color.BLUE, "blue"):
            with kernel.replace(color, answer):
                assert kernel.run(seeing).output is True


def test_what_undoes_may_return_anything() -> None:
    """Nobody reads it: it has been done, and is not told as if it had not."""

    def undo() -> Any:
        calls.append(1)
        return object()

    def fail() -> None:
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "no")

    calls: list[int] = []
    with Kernel(discover=False) as kernel:

        @kernel.workflow
        async def undone(ctx: WorkflowContext) -> None:
            with ctx.compensate(undo):
                await ctx.step(fail)

        execution = kernel.run(undone)
    assert execution.error == "step 'fail' failed: no"
    assert calls == [1]


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (
            SecretStr,
            SecretStr("hunter22"),
            "no secret is stored: read it where it is needed, or pa",
        ),
        (
            dict,
            {1: 2},
            "it has a key that is not text but int (write the type of its keys in the a",
        ),
        (Pet, Dog(name="Rex"), ""),
        (list[date], (DAY,), ""),
        (Iterable[date], [DAY], ""),
        (dict[str, Any], {"when": DAY}, ""),
        (dict[int, set[Color]], {1: {Color.RED}}, ""),
    ],
)
def test_an_argument_becomes_what_its_parameter_takes(
    annotation: Any, value: Any, says: str
) -> None:
    """But nothing of it is lost unseen: that is refused before the call."""
    got = list[Any]()

    def take(given: Any) -> None:
        got.append(given)

    async def below(ctx: WorkflowContext, given: Any) -> None:
        got.append(given)

    take.__annotations__["given"] = below.__annotations__["given"] = annotation
    with Kernel(discover=False) as kernel:
        kernel.workflow(below)

        @kernel.workflow
        async def giving(ctx: WorkflowContext, child: bool) -> None:
            await (ctx.child(below, value) if child else ctx.step(take, value))

        for child, count in ((False, 1), (True, 2)):
            error = kernel.run(giving, child).error
            assert says in str(error) and "hunter22" not in str(error)
            assert (error is None) is (not says)
            assert len(got) == (0 if says else count)
