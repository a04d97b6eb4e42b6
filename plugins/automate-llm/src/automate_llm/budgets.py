"""
Budgets of tokens and money, which refuse a request before they are passed.

A request reserves the most that it can cost, and is settled by its answer. The counts are this
process's own: other workers have their own, and a new process begins with none.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RequestUsage

from automate_kernel import AutomateError, ErrorCodes, current_call
from automate_llm.config import LlmBudget, LlmBudgets
from automate_llm.model_answers import cost_of

# Executions that are counted: of those that were not heard of for longest the count is forgotten.
_MOST_COUNTED = 10_000


@dataclass(slots=True)
class Amount:
    """Tokens and US dollars."""

    tokens: int = 0
    usd: float = 0.0

    def add(self, other: Amount, sign: int = 1) -> None:
        """Add *other*, or take it away with -1."""
        self.tokens += sign * other.tokens
        self.usd += sign * other.usd


@dataclass(slots=True)
class Spending:
    """The amount that one request has spent."""

    spent: Amount

    def note(self, answer: ModelResponse) -> None:
        """Note the usage that an *answer* states; without one it stays the most that it may be."""
        usage, cost = answer.usage, cost_of(answer)
        if tokens := usage.input_tokens + usage.output_tokens:
            self.spent = Amount(tokens, self.spent.usd if cost is None else float(cost))


@dataclass
class Ledger:
    """The amounts that executions and tenants have spent here, and have reserved."""

    budgets: LlmBudgets
    clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    _spent: OrderedDict[str, Amount] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
        amount = Amount(tokens=input_tokens + output_tokens)
        if self.counts_money:
            usage = RequestUsage(input_tokens=input_tokens, output_tokens=output_tokens)
            price = cost_of(ModelResponse([], usage=usage, model_name=model, provider_name=system))
            if price is None:
                raise AutomateError(
                    ErrorCodes.FAILED_PRECONDITION,
                    f"the price of the model {model!r} is unknown, so no budget of money can hold",
                    hint="give a budget of tokens instead",
                )
            amount.usd = float(price)
        return amount

    @contextmanager
    def spending(self, most: Amount) -> Iterator[Spending]:
        """
        Reserve *most* for a request, and settle it by what the block notes.

        An error that the service itself answers costs nothing. Any other end, a lost connection
        say, counts as *most*: nobody knows whether it was paid.
        """
        accounts = self.reserve(most)
        noted = Spending(most)
        try:
            yield noted
        except ModelHTTPError:
            noted.spent = Amount()
            raise
        finally:
            self.settle(accounts, most, noted.spent)

    def reserve(self, most: Amount) -> list[str]:
        """
        Reserve *most* for the current call, and return the accounts that it is reserved on.

        Raises ``RESOURCE_EXHAUSTED`` if a budget could be passed; then nothing is reserved.
        """
        accounts = self._accounts()
        with self._lock:
            for key, what, budget in accounts:
                _check(self._spent.get(key, Amount()), most, budget, what)
            for key, _, _ in accounts:
                self._spent.setdefault(key, Amount()).add(most)
                self._spent.move_to_end(key)
            while len(self._spent) > _MOST_COUNTED:
                self._spent.popitem(last=False)
        return [key for key, _, _ in accounts]

    def settle(self, accounts: list[str], reserved: Amount, spent: Amount) -> None:
        """Replace what was *reserved* by what was *spent*."""
        with self._lock:
            for key in accounts:
                amount = self._spent.get(key)
                if amount is not None:
                    amount.add(reserved, -1)
                    amount.add(spent)

    def _accounts(self) -> list[tuple[str, str, LlmBudget]]:
        call = current_call()
        found = []
        if self.budgets.execution is not None and call is not None and call.execution_id:
            key = f"execution {call.execution_id}"
            found.append((key, "this execution", self.budgets.execution))
        if self.budgets.tenant_day is not None:
            tenant = (call.tenant_id if call is not None else None) or ""
            key = f"{self.clock():%Y-%m-%d} {tenant}"
            what = f"the tenant {tenant!r} today" if tenant else "today"
            found.append((key, what, self.budgets.tenant_day))
        return found


def _check(spent: Amount, most: Amount, budget: LlmBudget, what: str) -> None:
    for unit, used, more, limit in (
        ("tokens", spent.tokens, most.tokens, budget.tokens),
        ("US dollars", spent.usd, most.usd, budget.usd),
    ):
        if limit is not None and used + more > limit:
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                f"the budget of {limit:,} {unit} for {what} has {limit - used:,.6g} left, and the"
                f" request may take {more:,.6g}",
                hint="raise the budget, send less, or lower max_tokens",
                retryable=False,
            )


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
        most = self._most(messages, model_settings, model_request_parameters)
        with self._ledger.spending(most) as spending:
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
        most = self._most(messages, model_settings, model_request_parameters)
        with self._ledger.spending(most) as spending:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                yield stream
            spending.note(stream.get())

    def _most(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> Amount:
        """Return the most that a request can take: no token is shorter than a byte."""
        sent = len(ModelMessagesTypeAdapter.dump_json(messages))
        for tool in (*parameters.function_tools, *parameters.output_tools):
            sent += len(str(tool.parameters_json_schema)) + len(tool.description or "")
        answer = int((settings or {}).get("max_tokens") or self._max_tokens)
        return self._ledger.amount(
            self.wrapped.model_name, self.wrapped.system, input_tokens=sent, output_tokens=answer
        )
