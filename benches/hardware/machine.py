"""Part a, the machine; and what all parts need: the Vulkan driver and Python packages."""

import json
import os
import platform
import re
import subprocess
import zipfile

from common import ROOT, call, publish

import compare

# Where NVIDIA's description of its Vulkan driver lies, if not where the loader looks.
DRIVER_FOLDERS = [
    "/usr/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/usr/local/nvidia/share/vulkan/icd.d",
    "/usr/local/nvidia/vulkan/icd.d",
]
LIBRARY_FOLDERS = ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"]


def devices(moonflow, environment):
    """What `moonflow devices` finds, and what went wrong."""
    done = call([moonflow, "devices", "--json"], 30, environment)
    if done.problem:
        return [], done.problem
    return json.loads(done.stdout), None


def settle(moonflow, scratch):
    """The environment in which a hardware adapter is found, failing that any; and what was tried."""
    tried, best = [], ({}, 0)
    for what, environment in environments(scratch):
        found, problem = devices(moonflow, environment)
        adapters = [device for device in found if device["backend"] != "cpu"]
        worth = 2 if any(not device["software"] for device in adapters) else len(adapters[:1])
        names = [device["name"] for device in adapters]
        tried.append({"environment": what, "adapters": names, "problem": problem})
        if worth > best[1]:
            best = (environment, worth)
        if worth == 2:
            break
    return best[0], tried


def environments(scratch):
    """As the machine is; with the loader that was carried; with NVIDIA's driver named besides."""
    yield "as it is", {}
    carried = unpacked_loader(scratch)
    libraries = carried + [folder for folder in LIBRARY_FOLDERS if os.path.isdir(folder)]
    paths = libraries + [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    loader = {"LD_LIBRARY_PATH": ":".join(paths)} if libraries else {}
    if loader:
        yield "with the loader that was carried", loader
    for folder in DRIVER_FOLDERS:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if name.startswith("nvidia") and name.endswith(".json"):
                yield f"with {folder}/{name}", {**loader, "VK_DRIVER_FILES": f"{folder}/{name}"}


def unpacked_loader(scratch):
    """Folders of the libraries in the Debian packages that were carried, unpacked."""
    target = scratch / "loader"
    for package in sorted((ROOT / "debs").glob("*.deb")):
        try:
            subprocess.run(["dpkg", "-x", str(package), str(target)], check=True, timeout=30)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{package.name} cannot be unpacked: {error}")
    return sorted({str(path.parent) for path in target.rglob("*.so.*")}) if target.exists() else []


def peers_path(python, scratch):
    """PYTHONPATH with those of the wheels that were carried that the interpreter lacks."""
    wheels = sorted((ROOT / "wheels").glob("*.whl"))
    if not wheels:
        return {}
    script = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    names = call([python, "-c", script], 60).stdout.lower().split()
    installed = {name.replace("-", "_") for name in names}
    target = scratch / "wheels"
    for wheel in wheels:
        if wheel.name.split("-")[0].lower() not in installed:
            zipfile.ZipFile(wheel).extractall(target)
    earlier = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{earlier}:{target}" if earlier else str(target)}


def part_a(job):
    """Adapters with limits and features, driver, clocks, memory, processor, versions."""
    found, problem = devices(job.program("moonflow"), {})
    adapters = [device for device in found if device["backend"] != "cpu"]
    result = {
        "headline": adapters[0]["name"] if adapters else problem or "no adapter was found",
        "adapters": found,
        "problem": problem,
        "processor": compare.machine(),
        "memory": memory(),
        "kernel": platform.release(),
        "revision": compare.revision(),
    }
    publish(job, "a", result)
    result["nvidia_smi"] = nvidia(job)
    publish(job, "a", result)
    result["versions"] = compare.installed(job)
    publish(job, "a", result)
    return bool(adapters)


def memory():
    """Bytes of memory, where /proc tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return 1024 * int(re.search(r"MemTotal:\s+(\d+)", lines.read())[1])
    except (OSError, TypeError):
        return None


def nvidia(job):
    """What nvidia-smi says: the fields that matter, and all of it but what names this one device."""
    fields = (
        "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,"
        "power.draw,power.limit,temperature.gpu,pstate"
    )
    short = call(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], 10)
    if short.problem:
        return {"problem": short.problem}
    values = [value.strip() for value in short.stdout.splitlines()[0].split(",")]
    whole = call(["nvidia-smi", "-q"], min(20, job.left()))
    names = re.compile(r"^.*\b(Serial Number|UUID|PDI|GUID)\b.*\n", re.MULTILINE)
    query = names.sub("", whole.stdout[:200_000])
    return {**dict(zip(fields.split(","), values)), "query": query}
