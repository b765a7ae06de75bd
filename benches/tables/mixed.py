"""A table as people have them, from `train --auto` to `sample` and `score`: do its columns come out as they went in?

    python benches/tables/mixed.py --moonflow target/release/moonflow --rows 4000 --samples 20000 > mixed.csv

Columns: a text of three classes, a boolean, a date, a count, one that is zero in half of the rows, one rounded to 0.01 and
a plain number; each depends on those before it. For each column the output has the largest difference between shares of a
category or the Kolmogorov-Smirnov distance from the table, what is allowed, and whether every cell looks as in the table.
Exits with 1 where one does not hold. Options after `--` go to `moonflow train`. `--table FILE` only writes the table.
Wants Python alone.
"""

import argparse
import csv
import datetime
import math
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from program import run

HEADER = ["plan", "active", "joined", "visits", "spent", "price", "rating"]
FIRST_DAY = datetime.date(2023, 1, 1)
DAYS = 730
CATEGORIES = {"plan": r"basic|plus|pro", "active": r"True|False"}
NUMBERS = {
    "joined": r"20\d\d-\d\d-\d\d",
    "visits": r"\d+(\.0)?",
    "spent": r"0(\.0)?|[1-9]\d*(\.\d+)?|0\.\d*[1-9]\d*|\d(\.\d+)?e-\d+",
    "price": r"-?\d+(\.\d\d?)?",
    "rating": r"-?\d+(\.\d+)?(e-\d+)?",
}
SHARE = 0.01
DISTANCE = 0.02
SCORED = 2000


def poisson(draw, mean):
    """Knuth's product of uniforms."""
    end, count, product = math.exp(-mean), 0, draw.random()
    while product > end:
        count, product = count + 1, product * draw.random()
    return count


def row(draw):
    plan = draw.choices(["basic", "plus", "pro"], [0.5, 0.3, 0.2])[0]
    level = ["basic", "plus", "pro"].index(plan)
    active = draw.random() < [0.4, 0.65, 0.9][level]
    # More join late, and of the dear plan most.
    day = int(DAYS * draw.random() ** (1 / (1.2 + 0.6 * level)))
    visits = poisson(draw, (1.5 + 2 * level) * (2 if active else 0.7))
    buys = draw.random() < (0.8 if active else 0.15)
    spent = draw.lognormvariate(2 + 0.1 * visits, 0.6) if buys else 0
    price = round(draw.gauss([9.5, 19, 33][level] + 2 * active, 1.5), 2)
    rating = 3 + 0.1 * (price - 15) + 0.8 * math.sin(day / 120) + draw.gauss(0, 0.5)
    joined = FIRST_DAY + datetime.timedelta(days=day)
    return [plan, active, joined.isoformat(), visits, spent, price, rating]


def write(path, rows, seed):
    draw = random.Random(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(row(draw) for _ in range(rows))


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == HEADER, f"columns {rows[0]}"
    return dict(zip(HEADER, zip(*rows[1:])))


def number(name, cell):
    if name == "joined":
        return float(datetime.date.fromisoformat(cell).toordinal())
    return float(cell)


def distance(table, sample):
    """The Kolmogorov-Smirnov statistic: ties count together."""
    counts = [Counter(table), Counter(sample)]
    shares, most = [0.0, 0.0], 0.0
    for value in sorted(set(table) | set(sample)):
        for side, of in enumerate((table, sample)):
            shares[side] += counts[side][value] / len(of)
        most = max(most, abs(shares[0] - shares[1]))
    return most


def compare(table, sample):
    """Yields column, difference, what is allowed, and cells that do not look as in the table."""
    for name, pattern in CATEGORIES.items():
        shares = [{level: count / len(of[name]) for level, count in Counter(of[name]).items()} for of in (table, sample)]
        levels = set(shares[0]) | set(shares[1])
        most = max(abs(shares[0].get(level, 0) - shares[1].get(level, 0)) for level in levels)
        yield name, most, SHARE, odd(pattern, sample[name])
    for name, pattern in NUMBERS.items():
        cells = odd(pattern, sample[name])
        of = [[number(name, cell) for cell in side[name]] for side in (table, sample)]
        yield name, distance(*of), DISTANCE, cells
    zeros = [sum(float(cell) == 0 for cell in of["spent"]) / len(of["spent"]) for of in (table, sample)]
    yield "spent=0", abs(zeros[0] - zeros[1]), SHARE, []


def odd(pattern, cells):
    return [cell for cell in cells if not re.fullmatch(pattern, cell)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moonflow", type=Path, default=Path("target/release/moonflow"))
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path)
    parser.add_argument("train", nargs="*")
    args = parser.parse_args()
    if args.table:
        write(args.table, args.rows, args.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write(folder / "mixed.csv", args.rows, args.seed)

        def moonflow(*command):
            said, notes = run(args.moonflow.resolve(), *command, cwd=folder)
            sys.stderr.write(notes)
            return said

        sys.stderr.write(moonflow("train", "mixed.csv", "--auto", "--out", "out", *args.train))
        moonflow("sample", "--model", "out/model.safetensors", "-n", str(args.samples), "--out", "sample.csv")
        # Rows at an atom take hundreds of evaluations each.
        head = (folder / "sample.csv").read_text().splitlines(keepends=True)[: SCORED + 1]
        (folder / "head.csv").write_text("".join(head))
        scores = moonflow("score", "--model", "out/model.safetensors", "head.csv").split()[1:]
        out = csv.writer(sys.stdout)
        out.writerow(["column", "difference", "allowed", "odd_cells", "holds"])
        fine = len(scores) == min(SCORED, args.samples) and all(math.isfinite(float(score)) for score in scores)
        out.writerow(["finite scores", "", "", "", fine])
        for name, most, allowed, cells in compare(read(folder / "mixed.csv"), read(folder / "sample.csv")):
            holds = most <= allowed and not cells
            fine &= holds
            out.writerow([name, f"{most:.4f}", allowed, " ".join(cells[:3]), holds])
        sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
