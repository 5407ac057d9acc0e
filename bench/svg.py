"""Line charts on logarithmic axes as SVG, with nothing but strings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

__all__ = ["line_chart"]

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 250, 50, 55
_COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#5d6d7e", "#d35400")

Point = tuple[float, float]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x_names: Sequence[str] | None = None,
) -> str:
    """Return a chart of some series. ``x_names`` makes x a position among names."""
    points = [point for line in series.values() for point in line if point[1] > 0]
    if not points:
        return ""
    x_of = _scale([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, log=x_names is None)
    bottom = 10 ** math.floor(math.log10(min(y for _, y in points)))
    top = 10 ** math.ceil(math.log10(max(y for _, y in points) * 1.0001))
    y_of = _scale([bottom, top], _HEIGHT - _BOTTOM, _TOP, log=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 24, title, size=15),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, x_label, anchor="middle"),
        _text(_LEFT, _TOP - 10, y_label),
    ]
    value = bottom
    while value <= top * 1.01:
        y = y_of(value)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#dddddd"))
        parts.append(_text(_LEFT - 6, y + 4, _short(value), anchor="end"))
        value *= 10
    for x in sorted({x for x, _ in points}):
        name = x_names[int(x)] if x_names else f"{x:,.0f}"
        parts.append(_text(x_of(x), _HEIGHT - _BOTTOM + 18, name, anchor="middle"))
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        shown = [(x_of(x), y_of(y)) for x, y in line if y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        width = 3 if number == 0 else 1.5
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in shown]
        y = _TOP + 10 + number * 20
        left = _WIDTH - _RIGHT + 15
        parts.append(_line(left, y - 4, left + 18, y - 4, colour, width))
        parts.append(_text(left + 24, y, name))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _scale(values: Sequence[float], start: float, end: float, *, log: bool) -> _Scale:
    return _Scale(min(values), max(values), start, end, log)


class _Scale:
    """Where a value is on an axis."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        self._log = log
        self._low = math.log(low) if log else low
        self._span = ((math.log(high) if log else high) - self._low) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        position = math.log(value) if self._log else value
        return self._start + (position - self._low) / self._span * self._length


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(words)}</text>"
    )


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )
