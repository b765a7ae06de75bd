"""Part d: rates of the GPU engine beside the roofline's, each dispatch, and what the host adds."""

import json

from common import DATA_SHEETS, SOFTWARE_RATES, call, median, publish

import compare

# Flows, batches, None is a shape's own, and shapes: the first and the last before the one between.
SIZES = [
    *(("affine", batch, shape) for batch in (None, 65_536) for shape in (0, 2, 1)),
    *(("spline", batch, shape) for batch in (None, 65_536) for shape in (0, 2, 1)),
    *(("joint", None, shape) for shape in (0, 2, 1)),
    *(("affine", 1_048_576, shape) for shape in (0, 2, 1)),
]
TOY_SIZES = [("affine", None, 0), ("affine", None, 2), ("affine", None, 1), ("spline", None, 0)]
# Shape and batch whose tiles are also searched for; the same of a rehearsal.
TUNED = [(2, 1024), (0, 32)]
# Training rows of an epoch, where a batch has not as many, and most steps in it.
EPOCH_ROWS, MOST_STEPS, TOY_STEPS = 65_536, 64, 4
# Widest hidden layer that the fused plan takes.
FUSED_WIDTH = 128
# Seconds that a rate is measured for, and the most that a case may take.
SECONDS, TOY_SECONDS, MOST = 0.3, 0.05, 90


def part_d(job):
    """Cases in the order of worth, each in a process of its own; written down after each."""
    result = {"cases": [], "dispatch": probe(job, {"job": "dispatch"}, 30)}
    rates, source = device_rates(job, result["dispatch"].get("adapter", ""))
    result["rates"] = {"flops": rates and rates[0], "bandwidth": rates and rates[1], "from": source}
    roofline = rates and [*rates, result["dispatch"].get("dispatch_seconds", 0.0)]
    table = list(cases(job))
    for number, case in enumerate(table):
        tell(job, result, len(table) - number)
        if job.left() < 3:
            break
        asked = {"job": "case", **case, "roofline": roofline}
        result["cases"].append({**case, **probe(job, asked, min(MOST, job.left() - 1))})
    tell(job, result, len(table) - len(result["cases"]))
    return len(result["cases"]) == len(table) and not any(
        "problem" in case for case in result["cases"]
    )


def cases(job):
    """Every plan of every size."""
    shapes = compare.TOY_SHAPES if job.rehearse else compare.SHAPES
    for flow, batch, index in TOY_SIZES if job.rehearse else SIZES:
        batch = batch or shapes[index]["batch"]
        case = {
            "flow": flow,
            **shapes[index],
            "shape": index,
            "batch": batch,
            "steps": TOY_STEPS if job.rehearse else max(1, min(EPOCH_ROWS // batch, MOST_STEPS)),
            "seconds": TOY_SECONDS if job.rehearse else SECONDS,
        }
        if case["hidden"] <= FUSED_WIDTH:
            yield {**case, "fused": True, "autotune": False}
        yield {**case, "fused": False, "autotune": False}
        # A search compiles every tile of every product, which takes its time: on a software adapter minutes.
        if (flow, index, batch) == ("affine", *TUNED[job.rehearse]):
            yield {**case, "fused": False, "autotune": True}


def device_rates(job, adapter):
    """Operations and bytes a second of the adapter, if they are known, and where they are from."""
    if job.rates:
        return job.rates, "the command line"
    for name, flops, bandwidth in DATA_SHEETS:
        if name in adapter:
            return (flops, bandwidth), f"the data sheet of the {name}"
    if "software adapter" in adapter:
        return SOFTWARE_RATES, "a guess, so that a rehearsal has predictions"
    return None, f"not known for {adapter or 'this adapter'}: --flops and --bandwidth tell them"


def probe(job, asked, seconds):
    """All that the probe printed, as one record; `problem` says what went wrong."""
    done = call([job.program("hardware_probe"), json.dumps(asked)], seconds)
    record = {"seconds_taken": round(done.seconds, 2)}
    for line in done.stdout.splitlines():
        try:
            record |= json.loads(line)
        except ValueError:
            # The last line of a process that was ended.
            continue
    problem = record.pop("error", None) or done.problem
    return {**record, "problem": problem} if problem else record


def tell(job, result, waiting):
    done = [case for case in result["cases"] if "train" in case]
    first = next((case for case in done if case["shape"] == 0), None)
    steps = (
        f", first shape {median(first['train']['steps_per_second']):,.0f} steps/s" if first else ""
    )
    result["headline"] = f"{len(done)} cases measured, {waiting} not run{steps}"
    result["waiting"] = waiting
    publish(job, "d", result)
