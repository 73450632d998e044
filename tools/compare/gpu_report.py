"""The report of tools/compare/gpu: what the parts printed, as tables."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import engines
from report import table

PROMPT = engines.PROMPT
ROWS = 12
BY_BYTES = ("roof_copy", "roof_workgroup")
VERSIONS = (
    "import torch, diffusers; "
    "print('PyTorch', torch.__version__, 'diffusers', diffusers.__version__, "
    "torch.cuda.get_device_name() if torch.cuda.is_available() else 'without a GPU')"
)
MODELS = {"sd15": (1.0, 3.0), "sdxl-sized": (0.7, None)}
"""How fast Ratel is to be at least, as a multiple of diffusers eager and of stable-diffusion.cpp on Vulkan."""


def torch_device() -> str:
    """cuda where this Python's PyTorch has it, else cpu. Asked in a process of its own, which gives the GPU back."""
    asked = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "cpu"


def output(records: dict, name: str) -> str | None:
    """What a part printed, unless it failed or was not run."""
    record = records.get(name)
    return None if record is None or "error" in record else record["output"]


def bench(records: dict, name: str) -> dict[str, dict]:
    """The rows of `ratel bench` by test; none where it failed."""
    text = output(records, name)
    return {row["test"]: row for row in json.loads(text)["rows"]} if text else {}


def peer(records: dict, name: str, kind: str) -> dict[str, float]:
    """Median seconds of a peer by part; none where it failed."""
    record = records.get(name)
    if record is None or "error" in record:
        return {}
    if kind == "stable-diffusion.cpp":
        seconds, _ = engines.read_sd_cpp(f"{record['log']}\n{record['output']}")
    else:
        seconds, _ = engines.read_json(record["output"])
    return {part: median(times) for part, times in seconds.items()}


def speeds(records: dict, model: str) -> dict[str, dict[str, float]]:
    """Seconds of a guided UNet step and of a decode, by engine."""
    found = {}
    for engine, part in (("Ratel", f"{model} bench"), ("Ratel, tuned", f"{model} bench tuned")):
        rows = bench(records, part)
        tests = (("unet", "UNet step"), ("vae", "VAE decode"), ("picture", "picture"))
        found[engine] = {key: rows[test]["seconds"] for key, test in tests if test in rows}
    found["diffusers f16 eager"] = peer(records, f"{model} diffusers eager", "diffusers")
    found["diffusers f16 compiled"] = peer(records, f"{model} diffusers compiled", "diffusers")
    found["stable-diffusion.cpp Vulkan"] = peer(records, f"{model} stable-diffusion.cpp", "stable-diffusion.cpp")
    return {engine: seconds for engine, seconds in found.items() if seconds}


def comparison(records: dict, model: str) -> list[str]:
    """The engines side by side, and what was wanted."""
    found = speeds(records, model)
    if not found:
        return ["nothing was timed", ""]
    ours = [seconds["unet"] for engine, seconds in found.items() if "Ratel" in engine and "unet" in seconds]
    best = min(ours, default=None)
    rows = []
    for engine, seconds in found.items():
        step = seconds.get("unet")
        cells = [f"{1e3 * step:.2f}", f"{1 / step:.2f}"] if step else ["", ""]
        cells.append(f"{1e3 * seconds['vae']:.2f}" if "vae" in seconds else "")
        cells.append(f"{seconds['picture']:.2f}" if "picture" in seconds else "")
        cells.append(f"{step / best:.2f}" if best and step and "Ratel" not in engine else "")
        rows.append([engine, *cells])
    head = ["engine", "guided step, ms", "steps/s", "VAE decode, ms", "20 steps, s", "Ratel's speed over its"]
    eager, vulkan = MODELS[model]
    wanted = f"Wanted: {eager} times diffusers eager"
    wanted += f", {vulkan} times stable-diffusion.cpp on Vulkan." if vulkan else "."
    return [*table(head, rows), "", wanted, ""]


def kernel_classes(records: dict, model: str) -> list[str]:
    """The profile by kernel: time, share of the roof, what binds, what a better one would gain at most."""
    text = output(records, f"{model} profile")
    if text is None:
        return []
    profile = json.loads(text)
    rows = []
    for row in profile["rows"]["kernel"][:ROWS]:
        roof = row["roof_share"]
        gain = row["gain_ns"] if row.get("gain_ns") is not None else None
        rows.append(
            [
                row["name"],
                str(row["dispatches"]),
                f"{row['ns']['median'] / 1e6:.2f}",
                f"{row['share']:.1%}",
                f"{row['flops_per_second'] / 1e9:.1f}",
                f"{row['bytes_per_second'] / 1e9:.1f}",
                "" if roof is None else f"{roof:.1%}",
                "" if gain is None else f"{gain / 1e6:.2f}",
            ]
        )
    summary, run = profile["summary"], profile["run"]
    wall, busy = summary["wall_ns"]["median"] / 1e6, summary["device_ns"]["median"] / 1e6
    steps = run["recorded_steps"][1] - run["recorded_steps"][0]
    idle, peak = summary["idle_ns"] / 1e6, summary["peak_bytes"] / 2**20
    line = f"Profile of {steps} steps, text encoder and decoder: wall {wall:.1f} ms, kernels {busy:.1f} ms, "
    line += f"idle {idle:.1f} ms, peak device memory {peak:.0f} MiB; {run['precision']}."
    head = ["kernel", "dispatches", "ms", "share", "GFLOP/s", "GB/s", "of the roof", "gain at most, ms"]
    return [line, "", *table(head, rows), ""]


def races(records: dict, model: str) -> list[str]:
    """Every kernel that could do a layer's op, against each other."""
    rows = []
    for name, record in records.items():
        if not name.startswith(f"{model} kernels "):
            continue
        try:  # a kernel that is wrong is an error, beside which the others were timed
            entrants = json.loads(record["output"])["rows"]
        except (KeyError, ValueError):
            continue
        layer = name.removeprefix(f"{model} kernels ")
        for row in entrants:
            time = "wrong" if row["seconds"] is None else f"{1e6 * row['seconds']:.1f}"
            roof = "" if row["of_roof"] is None else f"{row['of_roof']:.1%}"
            chosen = f"{row['kernel']}{' (chosen)' if row['chosen'] else ''}"
            error = "" if row["nmse"] is None else f"{row['nmse']:.1e}"
            rows.append([layer, chosen, row["elem"], str(row["weights"]), time, roof, error])
    head = ["layer", "kernel", "elem", "weights", "us", "of the roof", "NMSE"]
    return ["Kernels by layer:", "", *table(head, rows), ""] if rows else []


def roof(records: dict) -> list[str]:
    """What the device reaches at best, and what it is."""
    lines = [line for name in ("versions", "devices") for line in (output(records, name) or "").splitlines()]
    text = output(records, "roofline")
    rows = []
    for probe in json.loads(text)["probes"] if text else []:
        value = probe["median"]
        if probe["kernel"] == "roof_empty":
            said = f"{1e6 * value:.1f} us"
        else:
            said = f"{value / 1e9:.1f} {'GB/s' if probe['kernel'] in BY_BYTES else 'GFLOP/s'}"
        rows.append([probe["kernel"], probe["what"], said, f"{probe['spread']:.0%}"])
    return ["```", *lines, "```", "", *(table(["microkernel", "", "median", "+-"], rows) if rows else []), ""]


def selftest(records: dict) -> list[str]:
    """Which kernels give the twin's results, counted."""
    record = records.get("selftest")
    if record is None:
        return []
    try:
        found = json.loads(record["output"])
    except (KeyError, ValueError):
        return [f"Self-test: {record.get('error', 'printed no JSON')}.", ""]
    wrong = sorted({row["kernel"] for row in found["rows"] if not row["passed"]})
    said = f" Failed: {', '.join(wrong)}." if wrong else ""
    return [f"Self-test: {found['cases'] - found['failed']} of {found['cases']} cases passed.{said}", ""]


def markdown(records: dict) -> str:
    """The report."""
    lines = ["# Ratel on this machine's GPU", "", *roof(records), *selftest(records)]
    for model in MODELS:
        lines += [f"## {model}", "", *comparison(records, model)]
        lines += [*kernel_classes(records, model), *races(records, model)]
    failed = [f"- {name}: {record['error']}" for name, record in records.items() if "error" in record]
    lines += ["## What failed", "", *(failed or ["nothing"]), ""]
    return "\n".join(lines)


def write(folder: Path, records: dict) -> None:
    """Writes report.md and report.json."""
    (folder / "report.md").write_text(markdown(records), encoding="utf-8")
    data = {
        "speeds": {model: speeds(records, model) for model in MODELS},
        "failed": {name: record["error"] for name, record in records.items() if "error" in record},
    }
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
