"""Part b: the tests of parity and against the oracle, each in a process of its own."""

import concurrent.futures
import os
import re

from common import ROOT, call, publish

# A line of a comparison's table: tensor, largest relative error, tolerance.
CHECK = re.compile(r"^  (\S.*?)\s+([\d.e+-]+|NaN|inf)  of\s+([\d.e+-]+)$")
# What a comparison says of a tensor that differs.
VALUES = re.compile(r"^(.+): (\d+) of (\d+) values off by more than (\S+) · (\S+): (.*)$")
VALUE = re.compile(r"\[(\d+)\] got (\S+), want ([^;\s]+)")
NOT_ZERO = re.compile(r"^(.+)\[(\d+)\]: got (\S+), want exactly 0$")
LENGTH = re.compile(r"^(.+): got (\d+) values, want (\d+)$")

# The order of worth; whether changed shaders are found comes last.
ORDER = [r"^oracle::", r"equals_its_cpu_twin$", r"^parity::plans::", r"^parity::training::", r"."]
LAST = r"every_change_of_the_shader_is_found$"
# What a rehearsal tries of each kind.
REHEARSED = r"kernels::(gather|sum_partials|log_density|adam|keep_best)::equals|^parity::timing::a_"
# Tests under way at once; each has a device of its own.
AT_ONCE = max(2, min(6, os.cpu_count() // 2))


def part_b(job):
    """Runs the tests in the order of worth; what is known is written after each."""
    suite = job.program("suite")
    listed = call([suite, "--list", "--format", "terse"], 30)
    if listed.problem:
        raise RuntimeError(f"the tests cannot be listed: {listed.problem}")
    wanted = re.compile(job.tests or (REHEARSED if job.rehearse else "."))
    names = [
        line.removesuffix(": test")
        for line in listed.stdout.splitlines()
        if line.endswith(": test")
    ]
    names = [name for name in names if re.match("(parity|oracle)::", name) and wanted.search(name)]
    names.sort(key=lambda name: (re.search(LAST, name) is not None, worth(name)))
    result = {"tests": [], "waiting": names}
    tell(job, result)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        under_way = [pool.submit(test, job, suite, name) for name in names]
        for done in concurrent.futures.as_completed(under_way):
            outcome = done.result()
            result["tests"].append(outcome)
            result["waiting"] = [name for name in result["waiting"] if name != outcome["name"]]
            tell(job, result)
    return bool(names) and all(test["status"] == "passed" for test in result["tests"])


def worth(name):
    return next(place for place, pattern in enumerate(ORDER) if re.search(pattern, name))


def tell(job, result):
    count = {status: 0 for status in ("passed", "failed", "timed out")}
    for test in result["tests"]:
        count[test["status"]] = count.get(test["status"], 0) + 1
    checks = sum(test["checks"] for test in result["tests"])
    texts = [
        f"{number} {status}" for status, number in count.items() if number or status != "timed out"
    ]
    waiting = f", {len(result['waiting'])} not run" if result["waiting"] else ""
    result["headline"] = f"{', '.join(texts)}{waiting}; {checks:,} tensors compared"
    publish(job, "b", result)


def test(job, suite, name):
    """Runs a test alone."""
    command = [suite, "--exact", name, "--nocapture", "--test-threads", "1"]
    done = call(command, min(job.left(), 120), {"MOONFLOW_ROOT": str(ROOT), "RUST_BACKTRACE": "0"})
    status = "timed out" if done.status is None else "failed" if done.status else "passed"
    return {"name": name, "status": status, "seconds": round(done.seconds, 2), **read(done, status)}


def read(done, status):
    """Comparisons and failures in a test's output."""
    adapter, checks, worst, failures = None, 0, None, []
    # A panic's message goes to the standard error.
    for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]:
        # libtest has begun the line with the test's name.
        if "GPU tests run on " in line:
            adapter = line.partition("GPU tests run on ")[2]
        elif found := CHECK.match(line):
            checks += 1
            error, tolerance = float(found[2]), float(found[3])
            share = error / tolerance if tolerance else error
            if worst is None or not share <= worst["share"]:
                worst = {"tensor": found[1], "error": error, "tolerance": tolerance, "share": share}
        else:
            failures += failure(line)
    about = {"adapter": adapter, "checks": checks, "worst": worst, "failures": failures}
    if status != "passed":
        about["output"] = (done.stdout + done.stderr)[-4000:]
        panic = re.search(r"panicked at .*\n(.*)", done.stderr)
        about["message"] = panic[1] if panic else done.problem
    return about


def failure(line):
    """What a line of a panic says: tensor, index, got and want of the first values that differ."""
    if found := VALUES.match(line):
        about = {"tensor": found[1], "bad": int(found[2]), "of": int(found[3])}
        about |= {"tolerance": float(found[4]), "scale": float(found[5])}
        return [
            {**about, "index": int(index), "got": float(got), "want": float(want)}
            for index, got, want in VALUE.findall(found[6])
        ]
    if found := NOT_ZERO.match(line):
        return [{"tensor": found[1], "index": int(found[2]), "got": float(found[3]), "want": 0.0}]
    if found := LENGTH.match(line):
        return [{"tensor": found[1], "values": int(found[2]), "wanted_values": int(found[3])}]
    return []
