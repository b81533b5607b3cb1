"""The two plots, as SVG written by hand: CPU a call and memory a call, each against calls in flight."""

from __future__ import annotations

from collections import defaultdict
from math import log10
from statistics import median
from typing import Any

from .plan import FLOOR_ASYNCIO, FLOOR_TRIO, OFFICIAL, OURS_ASYNCIO, OURS_TRIO, RUST

COLOURS = {
    OURS_TRIO: "#0b6e4f",
    OURS_ASYNCIO: "#4caf7a",
    OFFICIAL: "#c0392b",
    "aiohttp": "#e08e0b",
    "httpx, trio": "#7d3c98",
    RUST: "#2471a3",
    "bare h11, trio": "#7f8c8d",
    FLOOR_TRIO: "#000000",
    FLOOR_ASYNCIO: "#555555",
}
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50


def draw(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The plots by name."""
    routes = [row for row in rows if row["verb"] == "route"]
    return {
        "cpu": _plot("Client CPU for one route, µs", _lines(routes, "route", "cpu_us")),
        "memory": _plot("Memory for one call in flight, KiB", _lines(routes, "memory", "kib")),
    }


def _lines(rows: list[dict[str, Any]], name: str, value: str) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["name"] == name and value in row:
            found[row["client"]][row["in_flight"]].append(row[value])
    return {
        client: sorted((count, median(each)) for count, each in found[client].items())
        for client in COLOURS
        if client in found
    }


def _plot(title: str, lines: dict[str, list[tuple[int, float]]]) -> str:
    points = [point for line in lines.values() for point in line]
    if not points:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    left, right = log10(min(x for x, _ in points)), log10(max(x for x, _ in points))
    low, high = log10(min(y for _, y in points) * 0.8), log10(max(y for _, y in points) * 1.25)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (log10(x) - left) / ((right - left) or 1)
        up = (log10(y) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22">{title}, against calls in flight</text>',
    ]
    for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000):
        if low <= log10(tick) <= high:
            _, y = place(10**left, tick)
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
    for count in sorted({x for x, _ in points}):
        x, _ = place(count, 10**low)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{count:,}</text>')
    names = _labels({client: place(*line[-1])[1] for client, line in lines.items()})
    for client, line in lines.items():
        dash = ' stroke-dasharray="6 4"' if "floor" in client else ""
        colour, placed = COLOURS[client], [place(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{names[client] + 4:.1f}" fill="{colour}">{client}</text>')
    return "\n".join((*parts, "</svg>\n"))


def _labels(wanted: dict[str, float]) -> dict[str, float]:
    """Heights for the names at the right, near the ends of their lines and none over another."""
    heights: dict[str, float] = {}
    last = float(TOP)
    for client, y in sorted(wanted.items(), key=lambda item: item[1]):
        last = heights[client] = max(y, last + 15)
    return heights
