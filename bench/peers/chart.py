#!/usr/bin/env python3
"""Draws GB/s over block size from the results of compare.py: chart.py xfer.json > xfer.svg"""

import json
import math
import statistics
import sys

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 250, 56, 56
# Okabe and Ito's colours, which colour-blind readers can tell apart; Baton's are the strong ones.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]
LABEL_GAP = 17


def series(document):
    """Points by contestant: block size, median, least, most. Of a peer's variants, the best."""
    found = {}
    for row in document["speeds"]:
        name, speeds = row["contestant"], row["gb_per_s"]
        short = " ".join(name.split()[:2]) if name.startswith(("NIXL", "Mooncake")) else name
        if name.startswith("UCX"):
            # Single messages, or memory in the cache: other work, shown in the table only.
            continue
        point = (row["block_bytes"], statistics.median(speeds), min(speeds), max(speeds))
        points = found.setdefault(short, {})
        points[point[0]] = max(points.get(point[0], point), point, key=lambda p: p[1])
    return {name: [points[size] for size in sorted(points)] for name, points in found.items()}


def size(count):
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            return f"{count >> shift} {unit}"
    return f"{count} B"


def spread_out(wanted):
    """Heights near those that are wanted, none closer to another than a line of text."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    placed, last = [0.0] * len(wanted), -math.inf
    for at in order:
        last = max(wanted[at], last + LABEL_GAP)
        placed[at] = last
    over = last - (HEIGHT - BOTTOM) if order else 0
    if over > 0:
        low = math.inf
        for at in reversed(order):
            low = min(placed[at], low - LABEL_GAP, HEIGHT - BOTTOM)
            placed[at] = low
    return placed


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def draw(document):
    lines = series(document)
    every = [point for points in lines.values() for point in points]
    if not every:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    small, large = min(p[0] for p in every), max(p[0] for p in every)
    low = 2 ** math.floor(math.log2(min(p[2] for p in every)))
    high = 2 ** math.ceil(math.log2(max(p[3] for p in every)))
    span = max(1.0, math.log2(large / small))
    rise = max(1.0, math.log2(high / low))

    def x(count):
        return LEFT + math.log2(count / small) / span * (WIDTH - LEFT - RIGHT)

    def y(speed):
        return HEIGHT - BOTTOM - math.log2(speed / low) / rise * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="16" font-weight="600">Blocks between two processes: '
        "GB/s over block size</text>",
        f'<text x="{LEFT}" y="42" fill="#666">medians of {document["rounds"]} rounds in turn, '
        f'bars from the least to the most; batches of {size(document["batch_bytes"])}; '
        f'{document["cores"]} cores</text>',
    ]
    speed = low
    while speed <= high:
        out.append(
            f'<path d="M{LEFT} {y(speed):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y(speed) + 4:.1f}" text-anchor="end">{speed:g}</text>'
        )
        speed *= 2
    for count in sorted({point[0] for point in every}):
        out.append(
            f'<path d="M{x(count):.1f} {HEIGHT - BOTTOM}v5" stroke="#888"/>'
            f'<text x="{x(count):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
            f"{size(count)}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">block size</text>')
    heights = spread_out([y(points[-1][1]) for points in lines.values()])
    # Baton first, so that its colours stay when peers are missing.
    names = sorted(lines, key=lambda name: not name.startswith("baton"))
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}
    for (name, points), height in zip(lines.items(), heights):
        colour = colours[name]
        own = name.startswith("baton")
        limit = name in ("memcpy", "raw tcp stream")
        dash = ' stroke-dasharray="5 4"' if limit else ""
        path = "M" + "L".join(f"{x(p[0]):.1f} {y(p[1]):.1f}" for p in points)
        out.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{3 if own else 1.6}"{dash}/>')
        for count, median, least, most in points:
            out.append(
                f'<path d="M{x(count):.1f} {y(least):.1f}V{y(most):.1f}" stroke="{colour}"/>'
                f'<circle cx="{x(count):.1f}" cy="{y(median):.1f}" r="{4 if own else 3}" fill="{colour}"/>'
            )
        count, median = points[-1][:2]
        weight = ' font-weight="600"' if own else ""
        out.append(
            f'<path d="M{x(count) + 6:.1f} {y(median):.1f}L{x(count) + 22:.1f} {height:.1f}" '
            f'stroke="{colour}" stroke-width="0.8" fill="none"/>'
            f'<text x="{x(count) + 26:.1f}" y="{height + 4:.1f}" fill="{colour}"{weight}>'
            f"{escape(name)} {median:.2f}</text>"
        )
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: chart.py xfer.json [MORE.json ...] > xfer.svg")
    document = {}
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            found = json.load(file)
        # What is said of the run is the first one's.
        document = {**found, **document, "speeds": document.get("speeds", []) + found["speeds"]}
    sys.stdout.write(draw(document))


if __name__ == "__main__":
    main()
