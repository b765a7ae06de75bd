"""What the parts of a hardware run share: places, programs that run for a while, result files."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
# The repository, or the folder that `prepare` makes, which is laid out in the same way.
ROOT = HERE.parents[1]
PEERS = ROOT / "benches/peers"
sys.path.insert(0, str(PEERS))

# The file of each part.
FILES = {
    "a": "a-machine.json",
    "b": "b-parity.json",
    "c": "c-training.json",
    "d": "d-device.json",
    "e": "e-peers.json",
    "f": "f-cpu.json",
}

# Part of a device's name, its FP32 operations a second (not those of matrix units) bytes a second,
# by the vendor's data sheets.
DATA_SHEETS = [
    ("H200", 67e12, 4.8e12),
    ("H100 NVL", 60e12, 3.9e12),
    ("H100 PCIe", 51e12, 2.0e12),
    ("H100", 67e12, 3.35e12),
]
# A processor that acts as a GPU: not measured, so that a rehearsal has predictions to show.
SOFTWARE_RATES = (1e10, 1e10)


@dataclasses.dataclass
class Job:
    """What a part is told."""

    out: pathlib.Path
    bin: pathlib.Path
    scratch: pathlib.Path
    python: str
    rehearse: bool
    # When its box ends, on the clock of `time.monotonic`.
    deadline: float
    # Regular expression that tests of part b must match.
    tests: str
    # Floating-point operations and bytes a second of the device, where they were given.
    rates: tuple

    def left(self):
        """Seconds of the box that are left."""
        return self.deadline - time.monotonic()

    def program(self, name):
        return str(self.bin / name)


def publish(job, part, result):
    """Writes what a part knows so far."""
    save(job.out / FILES[part], result)


def save(path, value):
    """Writes JSON in one piece; numbers that JSON does not have are null."""
    whole = path.with_name(f".{path.name}.tmp")
    whole.write_text(json.dumps(finite(value), indent=1) + "\n")
    whole.replace(path)


def finite(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def load(path):
    """The JSON of a file; None where there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@dataclasses.dataclass
class Ended:
    """A program that was run: exit status, None where its time was over; what it said; seconds."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def problem(self):
        """What went wrong, in a line; None where nothing did."""
        if self.status == 0:
            return None
        if self.status is None:
            return f"ended after {self.seconds:.0f} s, its time"
        last = (self.stderr.strip() or self.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
        return f"exit status {self.status}: {last[0][:300]}"


def call(command, seconds, environment=None):
    """Runs a program for at most so many seconds; what it started ends with the part at the latest."""
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        return Ended(127, "", f"{command[0]} cannot be started: {error.strerror}", 0.0)
    try:
        stdout, stderr = process.communicate(timeout=max(0.1, seconds))
        status = process.returncode
    except subprocess.TimeoutExpired as late:
        process.kill()
        stdout, stderr = (decoded(part) for part in (late.stdout, late.stderr))
        status = None
    return Ended(status, stdout, stderr, time.monotonic() - start)


def decoded(output):
    """What a program had said before it was ended, which comes as bytes."""
    return (output or b"").decode(errors="replace") if not isinstance(output, str) else output


def median(values):
    values = sorted(values)
    return values[len(values) // 2] if values else None
