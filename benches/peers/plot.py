#!/usr/bin/env python3
"""Draws results of compare.py as bars: `plot.py OUT.svg compare.json…`. Wants no package.

A panel for each job, a bar for each peer: how many times moonflow's rate it reaches, the median over rounds.
"""

import collections
import html
import json
import statistics
import sys

INK, TEXT, MUTED, FRAME = "#17202a", "#3a4653", "#6d7987", "#b4bdc7"
OWN, PEER, SMALLER = "#cf4f16", "#86b7e2", "#d3dae1"
# Peers whose own form of the affine model has half of moonflow's parameters and products.
HALF = ("zuko", "flowjax")
WIDTH, LEFT, BAR, GAP, PANEL_GAP, COLUMN_GAP = 1600, 40, 24, 8, 64, 60
COLUMNS = 2
NAMES, LABEL = 170, 340


def panels(paths):
    """Job to peer to (median rate, median of rate ÷ moonflow's within a round); seconds count inversely."""
    found = {}
    for path in paths:
        rates = collections.defaultdict(lambda: collections.defaultdict(dict))
        for window in json.loads(open(path).read())["windows"]:
            rates[window["task"]][window["peer"]][window["round"]] = window["rate"]
        for task, peers in rates.items():
            own = peers.get("moonflow", {})
            panel = {}
            for peer, rounds in peers.items():
                shares = [rate / own[r] for r, rate in rounds.items() if r in own]
                if task.startswith("whole"):
                    shares = [1 / share for share in shares]
                if shares:
                    panel[peer] = statistics.median(rounds.values()), statistics.median(shares)
            found[task] = panel
    return found


def text(x, y, words, size, colour, anchor="start", weight="normal"):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{html.escape(words)}</text>'
    )


def rate(task, value):
    if task.startswith("whole"):
        return f"{value:.1f} s"
    unit = "steps/s" if task.startswith("train") else "rows/s"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def draw(found):
    width = (WIDTH - 2 * LEFT - (COLUMNS - 1) * COLUMN_GAP) / COLUMNS
    parts, tops = [], [LEFT + 10] * COLUMNS
    for task, panel in found.items():
        column = tops.index(min(tops))
        x, y = LEFT + column * (width + COLUMN_GAP), tops[column] + 26
        title = "whole process: 60 epochs of two moons" if task.startswith("whole") else task
        parts.append(text(x, y, title, 21, INK, weight="bold"))
        y += 16
        room = width - NAMES - LABEL
        longest = max(share for _, share in panel.values())
        start = y
        for peer, (median, share) in sorted(panel.items(), key=lambda item: -item[1][1]):
            own = peer == "moonflow"
            # The other flows have a word more, as in `train spline: …`.
            smaller = peer in HALF and " " not in task.split(":")[0]
            colour = OWN if own else SMALLER if smaller else PEER
            weight = "bold" if own else "normal"
            parts.append(text(x + NAMES - 12, y + BAR - 6, peer, 18, INK if own else TEXT, "end", weight))
            length = max(2.0, room * share / longest)
            parts.append(
                f'<rect x="{x + NAMES:.0f}" y="{y:.0f}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
            )
            half = ", half the model" if smaller else ""
            words = rate(task, median) + ("" if own else f"  (÷ {1 / share:.2f}{half})")
            parts.append(text(x + NAMES + length + 10, y + BAR - 6, words, 17, TEXT if own else MUTED))
            y += BAR + GAP
        parts.append(
            f'<line x1="{x + NAMES:.0f}" y1="{start - 2:.0f}" x2="{x + NAMES:.0f}" y2="{y - GAP + 2:.0f}" '
            f'stroke="{FRAME}" stroke-width="2"/>'
        )
        tops[column] = y + PANEL_GAP - 26
    height = max(tops)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"
    )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with open(sys.argv[1], "w") as out:
        out.write(draw(panels(sys.argv[2:])))
