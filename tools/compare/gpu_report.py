"""The report of tools/compare/gpu: what the parts printed, as tables."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import engines
from gpu_parts import NOT_READ
from report import table

TITLES = {"sd15": "SD 1.5", "sdxl-sized": "SDXL's size"}
BY_BYTES = ("roof_copy", "roof_workgroup")
EAGER, COMPILED, CPP = "diffusers f16 eager", "diffusers f16 compiled", "stable-diffusion.cpp"
SAMPLING = "sampling using"
WANTED = {"sd15": ((EAGER, 1.0, 1.7), (CPP, 3.0, None)), "sdxl-sized": ((EAGER, 0.7, 1.0),)}
"""How fast a guided step of Ratel's is to be, as a multiple of a peer's speed: at least, and after that."""


@dataclass(frozen=True)
class Target:
    """A speed that is to be reached: Ratel's over a peer's, so the peer's time over Ratel's. why: it is not known."""

    model: str
    what: str
    wanted: float
    then: float | None
    found: float | None
    why: str = ""


def output(records: dict, name: str) -> str | None:
    """What a part printed, unless it failed or was not run."""
    record = records.get(name)
    return None if record is None or "error" in record else record["output"]


def why_not(records: dict, name: str) -> str:
    """Why there is nothing of a part."""
    return records[name].get("error", "it says no such time") if name in records else "not run"


def bench(records: dict, name: str) -> dict[str, dict]:
    """The rows of `ratel bench` by test; none where it failed."""
    text = output(records, name)
    return {row["test"]: row for row in json.loads(text)["rows"]} if text else {}


def peer(records: dict, name: str) -> dict[str, float]:
    """Median seconds of a peer by part, also of what it did before it failed."""
    record = records.get(name, {})
    try:
        if CPP in name:
            text = f"{record['log']}\n{record['output']}"
            # before the sampling, other bars are drawn; and on the processor it is another peer
            if SAMPLING not in text or engines.sd_cpp_device(text) is None:
                return {}
            seconds, _ = engines.read_sd_cpp(text.rpartition(SAMPLING)[2])
        else:
            seconds, _ = engines.read_json(record["output"])
    except NOT_READ:  # its error says so
        return {}
    return {part: median(times) for part, times in seconds.items()}


def speeds(records: dict, model: str) -> dict[str, dict[str, float]]:
    """Seconds of a guided UNet step and of a decode by engine; of Ratel also of a picture, and the least that the step
    can take on this device."""
    found = {}
    tests = {"unet": "UNet step", "vae": "VAE decode"}
    for engine, part in (("Ratel", f"{model} bench"), ("Ratel, tuned", f"{model} bench tuned")):
        rows = bench(records, part)
        found[engine] = {key: rows[test]["seconds"] for key, test in tests.items() if test in rows}
        if (least := rows.get("UNet step", {}).get("attainable_seconds")) is not None:
            found[engine]["unet_roof"] = least
    if "picture" in (rows := bench(records, f"{model} picture")):
        found["Ratel"]["picture"] = rows["picture"]["seconds"]
    found[EAGER] = peer(records, f"{model} diffusers eager")
    found[COMPILED] = peer(records, f"{model} diffusers compiled")
    for name in records:
        if name.startswith(f"{model} {CPP}"):
            found[name.removeprefix(f"{model} ")] = peer(records, name)
    return {engine: seconds for engine, seconds in found.items() if seconds}


def fastest(found: dict[str, dict[str, float]], engine: str, part: str) -> float | None:
    """The least seconds of an engine's variants."""
    return min((s[part] for name, s in found.items() if name.startswith(engine) and part in s), default=None)


def targets(records: dict, model: str) -> list[Target]:
    """What is to be reached, and what was: the fastest of Ratel over the fastest of the peer's variants."""
    found, all_of_them = speeds(records, model), []
    ours = fastest(found, "Ratel", "unet")
    for engine, wanted, then in WANTED[model]:
        theirs = fastest(found, engine, "unet")
        ratio = theirs / ours if ours and theirs else None
        part = f"{model} diffusers eager" if engine == EAGER else f"{model} {CPP}"
        lacking = [] if ours else [f"Ratel: {why_not(records, f'{model} bench')}"]
        lacking += [] if theirs else [f"{engine}: {why_not(records, part)}"]
        all_of_them.append(Target(model, f"guided step, times {engine}", wanted, then, ratio, "; ".join(lacking)))
    return all_of_them


def said_of_targets(records: dict, smoke: bool) -> list[str]:
    """The targets of all models as a table."""
    if smoke:
        return ["Small models under the large ones' names, to see that all of it works: the times say nothing.", ""]
    rows, reasons = [], []
    for target in (target for model in WANTED for target in targets(records, model)):
        what = f"{TITLES[target.model]}: {target.what}"
        then = "" if target.then is None else f"{target.then:.1f}"
        found = "" if target.found is None else f"{target.found:.2f}"
        met = "not known" if target.found is None else "met" if target.found >= target.wanted else "missed"
        rows.append([what, f"{target.wanted:.1f}", then, found, met])
        reasons += [f"- {what}: {target.why}"] if target.why else []
    lines = ["How fast Ratel is, as a multiple of the other's speed; more is better.", ""]
    lines += [*table(["", "at least", "then", "found", ""], rows), ""]
    return lines + (["Not known:", "", *reasons, ""] if reasons else [])


def comparison(records: dict, model: str) -> list[str]:
    """The engines side by side."""
    found = speeds(records, model)
    if not found:
        return ["Nothing was timed.", ""]
    best = {part: fastest(found, "Ratel", part) for part in ("unet", "vae")}
    rows = []
    for engine, seconds in found.items():
        step, decode, picture = (seconds.get(part) for part in ("unet", "vae", "picture"))
        times = [f"{1e3 * step:.2f}", f"{1 / step:.2f}"] if step else ["", ""]
        of_roof = f"{seconds['unet_roof'] / step:.1%}" if step and "unet_roof" in seconds else ""
        is_peer = not engine.startswith("Ratel")
        over = [f"{t / best[p]:.2f}" if is_peer and t and best[p] else "" for p, t in (("unet", step), ("vae", decode))]
        decoded = f"{1e3 * decode:.2f}" if decode else ""
        rows.append([engine, *times, of_roof, over[0], decoded, over[1], f"{picture:.2f}" if picture else ""])
    head = ["engine", "guided step, ms", "steps/s", "of the roof", "Ratel's speed over its"]
    head += ["VAE decode, ms", "Ratel's speed over its", "picture, s"]
    return [*table(head, rows), "", *devices_of(records, model), ""]


def devices_of(records: dict, model: str) -> list[str]:
    """What each engine ran on, and in which precision: only on the same card do ratios say something."""
    lines = []
    if text := output(records, f"{model} bench"):
        lines.append(f"- Ratel: {json.loads(text)['device']}, {json.loads(text)['precision']}")
    if text := output(records, "PyTorch"):
        lines.append(f"- diffusers: {text.strip()}")
    for name, record in records.items():
        if name.startswith(f"{model} {CPP}") and "log" in record:
            device = engines.sd_cpp_device(f"{record['log']}\n{record['output']}")
            lines.append(f"- {name.removeprefix(f'{model} ')}: {device or 'no Vulkan device'}")
    return ["On:", "", *lines] if lines else []


def rate(amount: float, nanoseconds: float) -> str:
    """Thousands of millions a second."""
    return f"{amount / nanoseconds:.1f}" if nanoseconds else ""


def percent(share: float | None) -> str:
    """A share, or nothing."""
    return "" if share is None else f"{share:.1%}"


def kernels(records: dict, model: str, part: str) -> list[str]:
    """A profile by class of kernels and by kernel: time, share of the roof, what binds, what the best possible one
    would gain."""
    text = output(records, f"{model} {part}")
    if text is None:
        return []
    profile = json.loads(text)
    rows = profile["rows"]["kernel"]
    by_class: dict[str, list[dict]] = {}
    for row in rows:
        # shaders/conv/conv2d.wgsl: the folder is what kernels of a kind have in common
        files = row.get("files") or ["/other/"]
        by_class.setdefault(files[0].split("/")[-2], []).append(row)
    classes = []
    for name, members in sorted(by_class.items(), key=lambda pair: -sum(row["share"] for row in pair[1])):
        ns = sum(row["ns"]["median"] for row in members)
        known = [row for row in members if row.get("roof_ns") is not None]
        timed = sum(row["ns"]["median"] for row in known)
        reached = sum(row["roof_ns"] for row in known) / timed if timed else None
        cells = [str(sum(row["dispatches"] for row in members)), f"{ns / 1e6:.2f}"]
        cells += [percent(sum(row["share"] for row in members)), rate(sum(row["flops"] for row in members), ns)]
        classes.append([name, *cells, rate(sum(row["bytes"] for row in members), ns), percent(reached)])
    each = []
    for row in rows:
        ns, gain = row["ns"]["median"], row.get("gain_ns")
        cells = [str(row["dispatches"]), f"{ns / 1e6:.2f}", percent(row["share"]), rate(row["flops"], ns)]
        cells += [rate(row["bytes"], ns), percent(row["roof_share"]), row.get("bound") or ""]
        each.append([row["name"], *cells, "" if gain is None else f"{gain / 1e6:.2f}"])

    summary, ran = profile["summary"], profile["run"]
    wall, busy = summary["wall_ns"]["median"] / 1e6, summary["device_ns"]["median"] / 1e6
    steps = ran["recorded_steps"][1] - ran["recorded_steps"][0]
    idle, peak = summary["idle_ns"] / 1e6, summary["peak_bytes"] / 2**20
    line = f"{', '.join(part.capitalize().split())}, of {steps} steps, text encoder and decoder: "
    line += f"wall {wall:.1f} ms, kernels {busy:.1f} ms, "
    line += f"idle {idle:.1f} ms, peak device memory {peak:.0f} MiB; {ran['precision']}."
    if cost := (summary.get("cost") or {}).get("share"):
        line += f" Timing every dispatch makes it take {1 + cost['median']:.1f} times as long."
    head = ["dispatches", "ms", "share", "GFLOP/s", "GB/s", "of the roof"]
    lines = [line, "", *table(["class", *head], classes), ""]
    return [*lines, *table(["kernel", *head, "bound", "gain at most, ms"], each), ""]


def races(records: dict, model: str) -> list[str]:
    """Every kernel that could do a layer's op, against each other."""
    rows = []
    for name, record in records.items():
        if not name.startswith(f"{model} kernels "):
            continue
        try:  # a kernel that is wrong is an error, beside which the others were timed
            entrants = json.loads(record["output"])["rows"]
        except NOT_READ:
            continue
        layer = name.removeprefix(f"{model} kernels ")
        for row in entrants:
            time = "wrong" if row["seconds"] is None else f"{1e6 * row['seconds']:.1f}"
            chosen = f"{row['kernel']}{' (chosen)' if row['chosen'] else ''}"
            error = "" if row["nmse"] is None else f"{row['nmse']:.1e}"
            rows.append([layer, chosen, row["elem"], str(row["weights"]), time, percent(row["of_roof"]), error])
    head = ["layer", "kernel", "elem", "weights", "us", "of the roof", "NMSE"]
    return ["Kernels by layer:", "", *table(head, rows), ""] if rows else []


def machine(records: dict) -> list[str]:
    """What it is."""
    lines = [line for name in ("PyTorch", "devices") for line in (output(records, name) or "").splitlines()]
    return ["```", *lines, "```", ""] if lines else []


def roof(records: dict) -> list[str]:
    """What the device reaches at best."""
    text = output(records, "roofline")
    if text is None:
        return [f"What the device reaches at best is not known: {why_not(records, 'roofline')}.", ""]
    rows = []
    for probe in json.loads(text)["probes"]:
        value = probe["median"]
        if probe["kernel"] == "roof_empty":
            said = f"{1e6 * value:.1f} us"
        else:
            said = f"{value / 1e9:.1f} {'GB/s' if probe['kernel'] in BY_BYTES else 'GFLOP/s'}"
        rows.append([probe["kernel"], probe["what"], said, f"{probe['spread']:.0%}"])
    return [*table(["microkernel", "", "median", "+-"], rows), ""]


def selftest(records: dict) -> list[str]:
    """Which kernels give the twin's results, counted."""
    record = records.get("selftest", {})
    try:
        found = json.loads(record["output"])
    except NOT_READ:
        return [f"Self-test: {why_not(records, 'selftest')}.", ""]
    wrong = sorted({row["kernel"] for row in found["rows"] if not row["passed"]})
    said = f" Failed: {', '.join(wrong)}." if wrong else ""
    return [f"Self-test: {found['cases'] - found['failed']} of {found['cases']} cases passed.{said}", ""]


def readable(section: Callable[..., list[str]], *arguments) -> list[str]:
    """A section, or that it could not be made: output that is not as it should be loses no other section."""
    try:
        return section(*arguments)
    except NOT_READ as error:
        return [f"What is needed for {section.__name__} could not be read: {error!r}.", ""]


def markdown(records: dict, smoke: bool = False) -> str:
    """The report."""
    lines = ["# Ratel on this machine's GPU", "", *readable(said_of_targets, records, smoke)]
    lines += [*readable(machine, records), *readable(roof, records), *readable(selftest, records)]
    for model, title in TITLES.items():
        lines += [f"## {title}", "", *readable(comparison, records, model)]
        for part in ("profile", "profile tuned"):
            lines += readable(kernels, records, model, part)
        lines += readable(races, records, model)
    failed = [f"- {name}: {record['error']}" for name, record in records.items() if "error" in record]
    lines += ["## What failed or was left out", "", *(failed or ["nothing"]), ""]
    return "\n".join(lines)


def plain(records: dict, smoke: bool = False) -> dict:
    """Speeds and targets as data."""
    found: dict = {"smoke": smoke, "speeds": {}, "targets": []}
    for model in TITLES:
        try:
            found["speeds"][model] = speeds(records, model)
            found["targets"] += [] if smoke else [asdict(target) for target in targets(records, model)]
        except NOT_READ as error:
            found["speeds"][model] = {"error": repr(error)}
    found["failed"] = {name: record["error"] for name, record in records.items() if "error" in record}
    return found


def write(folder: Path, records: dict, smoke: bool = False) -> None:
    """Writes report.md and report.json."""
    (folder / "report.md").write_text(markdown(records, smoke), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(plain(records, smoke), indent=1) + "\n", encoding="utf-8")
