"""Look at something again and again, and show it in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from automate_kernel.cli.output import Output
from automate_kernel.errors import StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Watch"]

T = TypeVar("T")


@dataclass
class Watch(Generic[T]):
    """
    Shows what *look* finds, every few seconds until Ctrl-C.

    In a terminal *picture* stands in place; elsewhere there is the text of *line* for each look,
    and with JSON what *data* gives, one document a line. A database that is away for a while is
    told of, and waited for.
    """

    out: Output
    look: Callable[[], T]
    picture: Callable[[T], RenderableType]
    line: Callable[[T], str]
    data: Callable[[T], Any]
    screen: bool = False

    def run(self, every: float, *, sleep: Callable[[float], Any] = time.sleep) -> None:
        """Look every *every* seconds. The first look may raise; Ctrl-C is the way to end."""
        try:
            if self.out.terminal and not self.out.json:
                self._in_place(every, sleep)
            else:
                self._line_by_line(every, sleep)
        except KeyboardInterrupt:
            pass

    def _line_by_line(self, every: float, sleep: Callable[[float], Any]) -> None:
        found = self.look()
        while True:
            self.out.record(self.data(found))
            self.out.line(self.line(found))
            found = self._again(every, sleep, self.out.note)

    def _in_place(self, every: float, sleep: Callable[[float], Any]) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        found = self.look()
        # Not refreshed on a thread of its own: only what was just looked up is worth drawing.
        live = Live(
            self.picture(found), console=self.out.console, screen=self.screen, auto_refresh=False
        )
        try:
            # Not a with: Ctrl-C in the middle of the start must give the screen back as well.
            live.start(refresh=True)
            while True:
                shown = self.picture(found)

                def tell(text: str, shown: RenderableType = shown) -> None:
                    live.update(Group(shown, Text(text, style="red")), refresh=True)

                found = self._again(every, sleep, tell)
                live.update(self.picture(found), refresh=True)
        finally:
            live.stop()

    def _again(self, every: float, sleep: Callable[[float], Any], tell: Callable[[str], None]) -> T:
        while True:
            sleep(every)
            try:
                return self.look()
            except StorageError as error:
                tell(f"no answer: {error.message}")
