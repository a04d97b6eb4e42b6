"""A mixin that notices where it would have no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.views import View

if TYPE_CHECKING:
    from rest_framework.views import APIView

    ViewBase = APIView
else:
    ViewBase = object

__all__ = ["Placed", "ViewBase"]


class Placed(ViewBase):
    """Refuses to stand behind a view that is not ours: its methods would never be called."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        order = list(cls.__mro__)
        if View not in order:
            return
        foreign = next(i for i, each in enumerate(order) if _is_frameworks(each))
        late = [each.__name__ for each in order[foreign:] if issubclass(each, Placed)]
        if late:
            raise TypeError(
                f"{cls.__name__}: {late[0]} stands behind {order[foreign].__name__}, where it has"
                f" no effect; write it first: class {cls.__name__}({late[0]}, …)"
            )


def _is_frameworks(each: type) -> bool:
    module = each.__module__
    return issubclass(each, View) and module.partition(".")[0] in ("rest_framework", "django")
