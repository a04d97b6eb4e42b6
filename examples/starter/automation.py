"""Your own code: an action that a workflow in YAML calls, and a workflow in Python."""

from __future__ import annotations

from typing import Any

from automate_kernel import Automation, WorkflowContext

automation = Automation()


@automation.action("orders.price")
def price(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the lines of an order."""
    return {
        "total": sum(line["price"] * line["quantity"] for line in lines),
        "pieces": sum(line["quantity"] for line in lines),
    }


def pack(pieces: int) -> str:
    """Put an order into a parcel; each call of a step is saved before the next begins."""
    return f"parcel of {pieces}"


def hand_over(parcel: str, number: int) -> str:
    """Give the parcel to the carrier."""
    return f"{parcel}, order {number}, is on its way"


@automation.workflow
async def delivery(ctx: WorkflowContext, order: dict[str, Any]) -> str:
    """Pack an order, wait for the carrier, hand it over."""
    parcel = await ctx.step(pack, order["pieces"])
    await ctx.sleep("2s")
    return await ctx.step(hand_over, parcel, order["number"])
