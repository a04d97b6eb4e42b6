"""What the warehouse automates, in code."""

from __future__ import annotations

from automate_django import action, workflow
from automate_kernel import SyncWorkflowContext, WorkflowContext


@action("warehouse.count")
def count(article: str) -> int:
    """Count the pieces of an article."""
    return len(article)


def order_more(article: str, pieces: int) -> str:
    """Order more pieces."""
    return f"{pieces} more of {article}"


@workflow(on="stock.low")
async def refill(ctx: WorkflowContext, article: str) -> str:
    """Order more of what runs out."""
    pieces = await ctx.step(count, article)
    ordered, _ = await ctx.gather(
        ctx.step(order_more, article, pieces), ctx.step(order_more, "spare", 1)
    )
    return ordered


@workflow
def take_stock(ctx: SyncWorkflowContext) -> int:
    """Count everything."""
    return ctx.step(count, "all")
