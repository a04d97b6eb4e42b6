"""
Budgets of tokens and money, which refuse a request before they are passed.

A request reserves the most that it can cost, and is settled by its answer. The counts are the
kernel's, in the application's database: all workers share them.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
from pydantic_ai.exceptions import ModelHTTPError, UserError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RequestUsage

from automate_kernel import AutomateError, ErrorCodes, current_call
from automate_kernel.operations.budgets import Budgets, Reservation, SpendingLimit
from automate_llm.config import LlmBudget, LlmBudgets
from automate_llm.file_tokens import file_tokens
from automate_llm.model_answers import cost_of
from automate_llm.model_errors import files_in

logger: logging.Logger = logging.getLogger(__name__)

# A request ends within it. What is reserved for longer is a dead process's, and counts as spent.
_LONGEST_SECONDS = 3_600.0
# Quotes within a text are escaped, so this is no text.
_ELSEWHERE = re.compile(rb'"kind":"(?:image-url|audio-url|document-url|video-url|uploaded-file)"')
_TOKENS, _DOLLARS = "tokens", "US dollars"


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens and US dollars."""

    tokens: int = 0
    usd: Decimal = Decimal(0)

    @property
    def by_unit(self) -> dict[str, int | Decimal]:
        """The amounts by the words of the kernel's budgets."""
        return {_TOKENS: self.tokens, _DOLLARS: self.usd}


@dataclass(slots=True)
class Spending:
    """The amount that one request has spent; *answered* is True once its answer has begun."""

    spent: Amount
    answered: bool = False

    def note(self, answer: ModelResponse) -> None:
        """Note the usage that an *answer* states; without one it stays the most that it may be."""
        usage, cost = answer.usage, cost_of(answer)
        if tokens := usage.input_tokens + usage.output_tokens:
            self.spent = Amount(tokens, self.spent.usd if cost is None else cost)


@dataclass(frozen=True)
class Ledger:
    """The budgets of the provider *name*, which *store* counts."""

    budgets: LlmBudgets
    store: Budgets
    name: str

    @property
    def counts_money(self) -> bool:
        """True if some budget is of money."""
        both = (self.budgets.execution, self.budgets.tenant_day)
        return any(each is not None and each.usd is not None for each in both)

    def amount(
        self, model: str, system: str, *, input_tokens: int, output_tokens: int = 0
    ) -> Amount:
        """
        Return what so many tokens of *model*, at the service *system*, cost.

        Raises ``FAILED_PRECONDITION`` if there is a budget of money, and the price is unknown.
        """
        tokens = input_tokens + output_tokens
        if not self.counts_money:
            return Amount(tokens)
        usage = RequestUsage(input_tokens=input_tokens, output_tokens=output_tokens)
        price = cost_of(ModelResponse([], usage=usage, model_name=model, provider_name=system))
        if price is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the price of the model {model!r} is unknown, so no budget of money can hold",
                hint="give a budget of tokens instead",
            )
        return Amount(tokens, price)

    @asynccontextmanager
    async def spending(self, most: Amount) -> AsyncIterator[Spending]:
        """
        Reserve *most* for a request, and settle it by what the block notes.

        Raises ``RESOURCE_EXHAUSTED`` if a budget could be passed. An error that the service itself
        answers costs nothing. Any other end, a lost connection or an error in a stream say, counts
        as *most*: nobody knows whether it was paid.
        """
        reservation = await self._reserved(most)
        noted = Spending(most)
        try:
            with anyio.fail_after(_LONGEST_SECONDS):
                yield noted
        except (ModelHTTPError, NotImplementedError, UserError):
            # The last two come before anything is sent: the service takes no such message.
            if not noted.answered:
                noted.spent = Amount()
            raise
        finally:
            await self._settled(reservation, noted.spent)

    async def _reserved(self, most: Amount) -> Reservation:
        # On a thread: the database may let one wait.
        work = asyncio.ensure_future(
            asyncio.to_thread(
                partial(
                    self.store.reserve, self._current(), most.by_unit, seconds=_LONGEST_SECONDS + 60
                )
            )
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread goes on, and reserves for a request that is never made.
            await asyncio.shield(asyncio.ensure_future(self._given_back(work)))
            raise

    async def _given_back(self, work: asyncio.Future[Reservation]) -> None:
        with suppress(Exception):  # then nothing was reserved
            await self._settled(await work, Amount())

    async def _settled(self, reservation: Reservation, spent: Amount) -> None:
        # A call that is cancelled waits for nothing more, and is settled all the same.
        work = asyncio.to_thread(self.store.settle, reservation, spent.by_unit)
        try:
            await asyncio.shield(asyncio.ensure_future(work))
        except AutomateError as error:
            # The answer stands: another one would be paid again. No budget is passed by that.
            logger.warning(
                "the database can't note what a request has spent, so all that it might have"
                " counts as spent in an hour: %s", error,
            )  # fmt: skip

    def _current(self) -> list[SpendingLimit]:
        """Return the budgets that the current call counts for."""
        call = current_call()
        found = []
        if self.budgets.execution is not None and call is not None and call.execution_id:
            limits = _limits(self.budgets.execution)
            found.append(
                SpendingLimit(name=self.name, limits=limits, execution_id=call.execution_id)
            )
        if self.budgets.tenant_day is not None:
            tenant = call.tenant_id if call is not None else None
            limits = _limits(self.budgets.tenant_day)
            found.append(SpendingLimit(name=self.name, limits=limits, tenant_id=tenant or None))
        return found


def _limits(budget: LlmBudget) -> dict[str, int | Decimal]:
    # By way of its text: 0.1 is meant, and not the float that is next to it.
    usd = None if budget.usd is None else Decimal(str(budget.usd))
    both = {_TOKENS: budget.tokens, _DOLLARS: usd}
    return {unit: limit for unit, limit in both.items() if limit is not None}


class BudgetedModel(WrapperModel):
    """A model whose requests are counted in *ledger*."""

    def __init__(self, wrapped: Model, ledger: Ledger, max_tokens: int) -> None:
        super().__init__(wrapped)
        self._ledger = ledger
        self._max_tokens = max_tokens

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the answer to *messages*, if the budgets allow it."""
        model_settings = self._bounded(model_settings)
        most = self._most(messages, model_settings, model_request_parameters)
        async with self._ledger.spending(most) as spending:
            answer = await self.wrapped.request(messages, model_settings, model_request_parameters)
            spending.note(answer)
        return answer

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Stream the answer to *messages*, if the budgets allow it."""
        model_settings = self._bounded(model_settings)
        most = self._most(messages, model_settings, model_request_parameters)
        async with self._ledger.spending(most) as spending:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                # Services tell of an error there too: what came before it was made, and is paid.
                spending.answered = True
                yield stream
            spending.note(stream.get())

    def _bounded(self, settings: ModelSettings | None) -> ModelSettings:
        """Return *settings* with a bound for the answer: what is reserved must be the most."""
        given: Any = dict(settings or {})
        given["max_tokens"] = given.get("max_tokens") or self._max_tokens
        bounded: ModelSettings = given
        return bounded

    def _most(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings,
        parameters: ModelRequestParameters,
    ) -> Amount:
        """Return the most that a request can take: no token of text is shorter than a byte."""
        dumped = ModelMessagesTypeAdapter.dump_json(messages)
        if _ELSEWHERE.search(dumped):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "a file that a message only refers to may have any number of tokens,"
                " so no budget can hold",
                hint="send its bytes: BinaryContent",
            )
        name, system = self.wrapped.model_name, self.wrapped.system
        sent = len(dumped) + _size(getattr(parameters, "output_object", None))
        sent += _size(getattr(parameters, "prompted_output_template", None))
        for file in files_in(messages):
            tokens = file_tokens(file.data, system=system, model=name)
            if tokens is not None:
                sent += tokens - len(file.base64)
        for tool in (*parameters.function_tools, *parameters.output_tools):
            sent += _size(tool.name) + _size(tool.parameters_json_schema) + _size(tool.description)
            sent += _size(getattr(tool, "return_schema", None))
        answer = int(settings["max_tokens"])
        return self._ledger.amount(name, system, input_tokens=sent, output_tokens=answer)


def _size(sent: Any) -> int:
    return 0 if sent is None else len(str(sent).encode())
