"""The catalog as one static HTML page, with a diagram of who emits and who reads what."""

from html import escape

from muster_contracts.generate.catalog import (
    EventEntry,
    cataloged_topics,
    deprecations,
    entries,
    kept_for,
    status_of,
)
from muster_contracts.topics import Topic

_STYLE = """
:root { color-scheme: light dark; --line: #8a94a6; --soft: color-mix(in srgb, currentColor 7%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .88em; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--soft); }
section { margin-top: 3rem; } article { margin-top: 2rem; }
svg { width: 100%; height: auto; } svg text { fill: currentColor; font: 14px system-ui, sans-serif; }
svg rect { fill: var(--soft); stroke: var(--line); } svg path { fill: none; stroke: var(--line); stroke-width: 1.3; }
.later { border: 1px solid var(--line); border-radius: 1rem; padding: 0 .6rem; font-size: .8em; }
""".strip()

_ROW = 54
_BOX = 34
_LEFT, _MIDDLE, _RIGHT = (10, 150), (300, 300), (760, 150)  # x and width of a column of boxes


def documents() -> dict[str, str]:
    """The page by its path."""
    return {"catalog.html": _page()}


def _page() -> str:
    topics = cataloged_topics()
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Catalog of Muster's events</title>",
            f"<style>\n{_STYLE}\n</style>",
            "</head>",
            "<body>",
            "<h1>Catalog of Muster's events</h1>",
            "<p>Generated from the models. A <em>stream</em> is one agency's events on one topic; ",
            "<code>ce_sequence</code> numbers them from 1 without gaps.</p>",
            _diagram(topics),
            _calendar(),
            *(_section(topic) for topic in topics),
            "</body>",
            "</html>",
            "",
        ]
    )


def _calendar() -> str:
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td>{each.since}</td><td>{each.sunset}</td>"
        f"<td><code>{escape(each.replaced_by)}</code></td></tr>"
        for name, each in deprecations()
    ]
    heads = "".join(f"<th>{head}</th>" for head in ("Event", "Deprecated since", "Sunset", "Replaced by"))
    body = (
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>"
        if rows
        else "<p>No event is deprecated.</p>"
    )
    return f'<section id="deprecations">\n<h2>Deprecations</h2>\n{body}\n</section>'


def _diagram(topics: list[Topic]) -> str:
    owners = sorted({topic.owner for topic in topics})
    readers = sorted({reader for topic in topics for reader in topic.readers})
    height = _ROW * len(topics) + 10
    topic_y = {topic.name: 10 + _ROW * row for row, topic in enumerate(topics)}
    owner_y = _spread(owners, height)
    reader_y = _spread(readers, height)
    parts = [
        f'<svg viewBox="0 0 920 {height}" role="img" aria-labelledby="diagram-title">',
        '<title id="diagram-title">Services on the left publish to topics; services on the right read them.</title>',
    ]
    for topic in topics:
        parts.append(_line(_LEFT, owner_y[topic.owner], _MIDDLE, topic_y[topic.name]))
        parts += [_line(_MIDDLE, topic_y[topic.name], _RIGHT, reader_y[reader]) for reader in topic.readers]
    parts += [_box(_LEFT, owner_y[owner], owner) for owner in owners]
    parts += [
        f'<a href="#{escape(topic.name)}">{_box(_MIDDLE, topic_y[topic.name], topic.name)}</a>' for topic in topics
    ]
    parts += [_box(_RIGHT, reader_y[reader], reader) for reader in readers]
    return "\n".join([*parts, "</svg>"])


def _spread(names: list[str], height: int) -> dict[str, int]:
    step = height // len(names)
    return {name: step * row + (step - _BOX) // 2 for row, name in enumerate(names)}


def _box(column: tuple[int, int], y: int, label: str) -> str:
    x, width = column
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{_BOX}" rx="6"/>'
        f'<text x="{x + 12}" y="{y + 22}">{escape(label)}</text>'
    )


def _line(start: tuple[int, int], start_y: int, end: tuple[int, int], end_y: int) -> str:
    x1, y1 = start[0] + start[1], start_y + _BOX // 2
    x2, y2 = end[0], end_y + _BOX // 2
    middle = (x1 + x2) // 2
    return f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}"/>'


def _section(topic: Topic) -> str:
    kept = "only the latest record of each key" if topic.compacted else kept_for(topic)
    facts = f"Owner {topic.owner} · key {topic.key} · {topic.partitions} partitions · kept {kept} · {topic.access}"
    return "\n".join(
        [
            f'<section id="{escape(topic.name)}">',
            f"<h2>{escape(topic.name)}</h2>",
            f"<p>{escape(topic.description)}</p>",
            f"<p>{escape(facts)}</p>",
            *(_article(entry) for entry in entries(topic)),
            "</section>",
        ]
    )


def _article(entry: EventEntry) -> str:
    mark = "" if entry.emitted else f' <span class="later">{status_of(entry)}</span>'
    if entry.deprecation:
        mark += f' <span class="later">deprecated, emitted until {entry.deprecation.sunset}</span>'
    rows = "\n".join(
        f"<tr><td><code>{escape(field.name)}</code></td><td>{escape(field.type)}"
        f"{'' if field.required else ', optional'}</td><td>{escape(field.meaning)}</td>"
        f"<td><code>{escape(field.example)}</code></td></tr>"
        for field in entry.fields
    )
    body = (
        "<p>The record has no value; its key is the <code>subject_ref</code>.</p>"
        if entry.tombstone
        else "<table>\n<thead><tr><th>Field</th><th>Type</th><th>Meaning</th><th>Example</th></tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n<pre>{escape(entry.example)}</pre>"
    )
    return "\n".join(
        [
            f'<article id="{escape(entry.type)}">',
            f"<h3>{escape(entry.name)}{mark}</h3>",
            f"<p><code>{escape(entry.type)}</code></p>",
            f"<p>{escape(entry.meaning)} {escape(entry.when)}</p>",
            body,
            "</article>",
        ]
    )
