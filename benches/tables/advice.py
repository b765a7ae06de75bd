"""Fits that fail and the self-check's advice, followed once, as CSV on standard output.

    python benches/tables/advice.py --moonflow target/release/moonflow --first 11 --seeds 3 > advice.csv

Each table of hard.py is fitted with `--preset` as it stands. Where the self-check says `Train with FLAGS`, the table is
fitted again with these flags, which take the place of those that the first fit had. `gap` and `gap_after` are the mean
of log p_true - log p over 10,000 fresh rows, in nats. Wants numpy.
"""

import argparse
import csv
import re
import sys
import tempfile
from pathlib import Path

from hard import LAWS, TABLES, draw, train

ADVICE = re.compile(r"Train with ((?:--[a-z-]+ \S+ ?)+)")


def advised(said):
    """The flags that the first finding with advice names; None where there is none."""
    found = ADVICE.search(said)
    return [part.rstrip(",:;") for part in found[1].split()] if found else None


def followed(first, advice):
    """The flags of the first fit with those of the advice, which come first where both have one."""
    own = list(zip(first[::2], first[1::2]))
    return [*advice, *(part for flag, value in own if flag not in advice for part in (flag, value))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moonflow", default="target/release/moonflow")
    parser.add_argument("--tables", type=lambda text: text.split(","), default=list(LAWS))
    parser.add_argument("--presets", type=lambda text: text.split(","), default=["seed", "default"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed, of the table and of the fit")
    arguments = parser.parse_args()
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["table", "preset", "seed", "gap", "suspicious", "advice", "gap_after", "suspicious_after"])
    for name in arguments.tables:
        assert name in TABLES, name
        for preset in arguments.presets:
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    folder = Path(folder)
                    _, truth, flags = draw(folder, name, seed)
                    flags += ["--preset", preset]
                    said, gap, _ = train(arguments.moonflow, folder, truth, flags)
                    advice, after, found = advised(said), "", ""
                    if advice:
                        again, after, _ = train(arguments.moonflow, folder, truth, followed(flags, advice))
                        after, found = f"{after:.4f}", again.count("suspicious: ")
                count = said.count("suspicious: ")
                out.writerow([name, preset, seed, f"{gap:.4f}", count, " ".join(advice or []), after, found])
                sys.stdout.flush()


if __name__ == "__main__":
    main()
