"""The demo's screen: the virtual date, events per topic, and the latest facts as sentences."""

import time
from collections import Counter, deque
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from muster_contracts import BEFORE_FIRST, Position
from muster_local.demo.cast import END, START
from muster_local.demo.facts import in_words
from muster_local.demo.log import Fact, Stream
from muster_local.demo.scene import Scene

_FACTS_SHOWN = 14
_OTHER_ROWS = 18  # rows that the rest of the screen needs


class View:
    """The demo's progress. A terminal shows it live; other output gets a line per scene."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._now = START
        self._scene = ""
        self._seen: dict[Stream, Position] = {}
        self._events: Counter[str] = Counter()
        self._latest: deque[str] = deque(maxlen=_FACTS_SHOWN)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> "View":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Print a permanent line."""
        self._console.print(f"[dim]{self._elapsed():5.1f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    def scene(self, scene: Scene) -> None:
        """Show that a scene begins."""
        self._now, self._scene = scene.at, scene.title
        if not self._console.is_terminal:
            self.note(f"{scene.at:%Y-%m-%d}  {scene.title}  ({self._events.total():,} events so far)")

    def instant(self, now: datetime) -> None:
        """Show the instant at which the clock stopped."""
        self._now = now

    def fact(self, fact: Fact) -> None:
        """Count an event, ignoring duplicates, and show it among the latest facts."""
        position = Position(fact.envelope.epoch, fact.envelope.sequence)
        if position <= self._seen.get(fact.stream, BEFORE_FIRST):
            return
        self._seen[fact.stream] = position
        self._events[fact.topic] += 1
        words = in_words(fact)
        if words:
            self._latest.append(f"{fact.envelope.time:%b %d}  {words}")

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _render(self) -> Group:
        events = Table("topic", "events", title="Events", title_justify="left", expand=True)
        events.columns[1].justify = "right"
        for topic, count in sorted(self._events.items()):
            events.add_row(topic, f"{count:,}")
        room = max(3, self._console.height - _OTHER_ROWS)
        facts = "\n".join(list(self._latest)[-room:]) or "…"
        year = (END - START).total_seconds()
        return Group(
            Text(f"{self._now:%A, %B %d, %Y  %H:%M} UTC", style="bold"),
            ProgressBar(total=year, completed=(self._now - START).total_seconds()),
            Text(self._scene or "The stack is ready."),
            events,
            Panel(Text(facts, no_wrap=True, overflow="ellipsis"), title="Latest facts", title_align="left"),
        )
