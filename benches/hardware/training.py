"""Part c: two moons, trained on the CPU and by both plans of the GPU; the models compared."""

import csv
import json
import math
import random
import subprocess
import time

from common import call, publish

DEVICES = {
    "cpu": ["--device", "cpu"],
    "fused": ["--device", "gpu", "--plan", "fused"],
    "layered": ["--device", "gpu", "--plan", "layered"],
}
# Training rows of 10,000 that are not kept for validation, and the default batch.
TRAIN_ROWS, BATCH = 9000, 256
# The recipe of a rehearsal, and its training rows and batch.
TOY = "--rows 400 --epochs 3 --layers 2 --hidden 8 --batch 32".split()
TOY_ROWS, TOY_BATCH = 360, 32


def part_c(job):
    """Trains by each device, then scores the same rows with each model on each device."""
    result = {"trainings": {}, "scores": {}}
    fresh = job.scratch / "fresh.csv"
    write_moons(fresh, 500 if job.rehearse else 20_000)
    for name, flags in DEVICES.items():
        result["trainings"][name] = train(job, name, flags)
        tell(job, result)
    scores = {}
    for model in DEVICES:
        for device in dict.fromkeys(["cpu", model]):
            scores[model, device] = score(job, fresh, model, DEVICES[device])
        result["scores"][model] = beside(scores, model)
        tell(job, result)
    trainings = result["trainings"].values()
    return all("problem" not in entry for entry in [*trainings, *result["scores"].values()])


def tell(job, result):
    texts = []
    for name, training in result["trainings"].items():
        if "problem" in training:
            texts.append(f"{name}: {training['problem']}")
        else:
            above, rate = training["above_floor"], training["steps_per_second"]
            texts.append(f"{name} {above:.4f} nats above the floor, {rate:,.0f} steps/s")
    result["headline"] = "; ".join(texts)
    publish(job, "c", result)


def write_moons(path, rows):
    """Rows of two moons that no training has seen."""
    draw = random.Random(20)
    with open(path, "w", newline="", encoding="ascii") as out:
        writer = csv.writer(out)
        writer.writerow(["x0", "x1"])
        for _ in range(rows):
            angle, upper = draw.uniform(0, math.pi), draw.random() < 0.5
            x = math.cos(angle) if upper else 1 - math.cos(angle)
            y = math.sin(angle) if upper else 0.5 - math.sin(angle)
            writer.writerow([x + draw.gauss(0, 0.05), y + draw.gauss(0, 0.05)])


def train(job, name, flags):
    """A training as a person runs it: its record, and when its first epoch was there."""
    command = [job.program("moonflow"), "train", "moons", *flags, "--log-format", "json"]
    command += ["--out", str(job.scratch / name), *(TOY if job.rehearse else [])]
    start = time.monotonic()
    with open(job.scratch / f"{name}.log", "w+", encoding="utf-8") as log:
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        except OSError as error:
            return {"problem": f"{command[0]} cannot be started: {error.strerror}"}
        first, epochs, ended = None, [], None
        # A training that hangs is ended with the part, whose file says how far it came.
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "epoch":
                first = first or time.monotonic() - start
                epochs.append(event)
            else:
                ended = event["record"]
        status = process.wait()
        log.seek(0)
        said = log.read().strip().splitlines()[-1:] or ["it said nothing"]
    if status or ended is None or len(epochs) < 2:
        return {"problem": f"exit status {status}: {said[0][:300]}"}
    rows, batch = (TOY_ROWS, TOY_BATCH) if job.rehearse else (TRAIN_ROWS, BATCH)
    steps = (epochs[-1]["epoch"] - epochs[0]["epoch"]) * math.ceil(rows / batch)
    return {
        "device": ended["device"],
        "above_floor": ended["held_out"]["above_floor"],
        "above_floor_error": ended["held_out"]["above_floor_error"],
        "steps_per_second": steps / max(epochs[-1]["seconds"] - epochs[0]["seconds"], 1e-9),
        "seconds_to_first_epoch": first,
        "steps_of_first_epoch": math.ceil(rows / batch),
        "seconds": time.monotonic() - start,
        "epochs": len(epochs),
        "skipped_steps": ended["skipped_steps"],
    }


def score(job, rows, model, flags):
    """log p of the rows by a model, in nats, or what went wrong."""
    path = job.scratch / model / "model.safetensors"
    done = call([job.program("moonflow"), "score", "--model", path, rows, *flags], job.left())
    return done.problem or [float(line) for line in done.stdout.splitlines()[1:]]


def beside(scores, model):
    """A model's scores beside those of the CPU's model, and by its own device beside the CPU's."""
    wrong = [
        value
        for key, value in scores.items()
        if isinstance(value, str) and key[0] in (model, "cpu")
    ]
    if wrong:
        return {"problem": wrong[0]}
    own, reference = scores[model, "cpu"], scores["cpu", "cpu"]
    differences = [a - b for a, b in zip(own, reference)]
    apart = [abs(a - b) for a, b in zip(scores[model, model], own)]
    return {
        "rows": len(own),
        "mean_log_prob": sum(own) / len(own),
        "mean_difference_to_cpu_model": sum(differences) / len(differences),
        "largest_difference_between_devices": max(apart),
        "mean_difference_between_devices": sum(apart) / len(apart),
    }
