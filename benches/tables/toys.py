"""Nats above the floor of the toy densities, by preset and seed, as CSV on standard output.

    python benches/tables/toys.py --moonflow target/release/moonflow --first 300 --seeds 5 > toys.csv

Each training draws 10,000 rows and is scored on 20,000 fresh ones; the floor is the entropy of the true density. A
table of medians and worst seeds goes to standard error. Wants the standard library alone.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path

from program import run

TOYS = ["moons", "circles", "blobs", "pinwheel", "checkerboard", "spirals", "swiss-roll"]


def train(moonflow, toy, preset, seed):
    """What the training's record says of held-out rows and of the self-check, and the seconds that training took."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--preset", preset, "--seed", str(seed), "--device", "cpu", "--log-format", "json"]
        command = [moonflow, "train", toy, *flags, "--out", str(Path(folder) / "run")]
        said, _ = run(*command)
    lines = [json.loads(line) for line in said.splitlines()]
    record = next(line["record"] for line in reversed(lines) if "record" in line)
    seconds = max(line.get("seconds", 0.0) for line in lines)
    return record["held_out"], record["check"], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    parser.add_argument("--toys", type=lambda text: text.split(","), default=TOYS)
    parser.add_argument("--presets", type=lambda text: text.split(","), default=["realnvp", "spline"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["density", "preset", "seed", "above_floor", "seconds", "suspicious"])
    for toy in arguments.toys:
        for preset in arguments.presets:
            above = []
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                held_out, check, seconds = train(arguments.moonflow, toy, preset, seed)
                above.append(held_out["above_floor"])
                out.writerow([toy, preset, seed, f"{above[-1]:.4f}", f"{seconds:.2f}", len(check["suspicious"])])
                sys.stdout.flush()
            print(f"{toy:14}{preset:10} median {statistics.median(above):.4f}  worst {max(above):.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
