"""A line plot as SVG, written by hand so that it is small and reads well in a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 208, 28, 48

_TEXT = 'font-family="sans-serif" font-size="12" fill="#333333"'

# Distinguishable by people with color blindness (Okabe and Ito, 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class Line:
    """A named line through points."""

    name: str
    points: Sequence[tuple[float, float]]


def draw(lines: Sequence[Line], *, x_title: str, y_title: str) -> str:
    """The plot; its x axis is logarithmic where the values span a factor of fifty, its y axis starts at 0."""
    xs = sorted({x for line in lines for x, _ in line.points})
    logarithmic = xs[0] > 0 and xs[-1] / xs[0] >= 50
    scale = math.log10 if logarithmic else float
    low, high = scale(xs[0]), scale(xs[-1])
    top = _round_up(max(y for line in lines for _, y in line.points))

    def across(x: float) -> float:
        return LEFT + (scale(x) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {_TEXT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT - 8}" y="{TOP - 12}" text-anchor="end">{escape(y_title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{escape(x_title)}</text>',
    ]
    for y in (top * step / 4 for step in range(5)):
        parts.append(f'<path d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{_label(y)}</text>')
    parts += [
        f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_label(x)}</text>'
        for x in (xs if logarithmic else dict.fromkeys([xs[0], xs[len(xs) // 2], xs[-1]]))
    ]
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line.points)
        height = TOP + 8 + 18 * number
        parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<path d="M{WIDTH - RIGHT + 12} {height}h16" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 34}" y="{height + 4}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8, or 10 times a power of ten, whose quarters are short numbers."""
    power: float = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)


def _label(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:.3g}M"
    return f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.3g}"
