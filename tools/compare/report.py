"""What the records of a comparison add up to: medians, ratios, targets; as Markdown and as plain data."""

from dataclasses import asdict, dataclass
from statistics import median

SGEMM_FLOPS = 2 * 2048**3
PARTS = {"unet": "guided UNet step", "vae": "VAE decode"}
MIB = 2**20


@dataclass(frozen=True)
class Target:
    """A ratio that is to be reached: Ratel's time over a peer's at most, or its share of sgemm's rate at least."""

    what: str
    wanted: str
    found: float | None
    met: bool | None


def medians(records: list[dict]) -> dict[str, dict]:
    """Each engine's entry, kind and driver, median seconds and number of processes by part, and memory."""
    engines: dict[str, dict] = {}
    for record in records:
        known = {key: record.get(key) for key in ("kind", "driver", "share")}
        engine = engines.setdefault(record["engine"], {**known, "all": {}, "errors": []})
        if "error" in record:
            engine["errors"].append(record["error"])
            continue
        for part, times in record["seconds"].items():
            engine["all"].setdefault(part, []).append(median(times))
        for key in ("flops", "checkpoint_bytes", "peak_bytes", "peak_private_bytes", "device_bytes"):
            engine[key] = record.get(key)
    for engine in engines.values():
        every = engine.pop("all")
        engine["seconds"] = {part: median(times) for part, times in every.items()}
        engine["spread"] = {part: (max(times) - min(times)) / median(times) for part, times in every.items()}
        engine["rounds"] = {part: len(times) for part, times in every.items()}
    return engines


def sgemm_rate(engines: dict[str, dict]) -> float | None:
    """Floating-point operations a second of the machine's BLAS."""
    times = [e["seconds"]["sgemm"] for e in engines.values() if "sgemm" in e["seconds"]]
    return SGEMM_FLOPS / times[0] if times else None


def share(engine: dict, rate: float | None, part: str = "unet") -> float | None:
    """How much of sgemm's rate an engine reaches in a part whose arithmetic it says."""
    if rate is None or part not in engine["seconds"] or part not in engine.get("flops", {}):
        return None
    return engine["flops"][part] / engine["seconds"][part] / rate


def ratios(engines: dict[str, dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Ratel's seconds over the peer's, by part, by Ratel's name, by peer's name."""
    found: dict = {}
    for part in PARTS:
        timed = {name: e for name, e in engines.items() if part in e["seconds"]}
        peers = {name: e for name, e in timed.items() if e["kind"] not in ("ratel", "sgemm")}
        for name, engine in timed.items():
            if engine["kind"] == "ratel":
                ours = engine["seconds"][part]
                row = {peer: ours / e["seconds"][part] for peer, e in peers.items()}
                found.setdefault(part, {})[name] = row
    return found


def targets(engines: dict[str, dict]) -> list[Target]:
    """PERFORMANCE's targets for a machine without a GPU, on what was measured.

    They are the shaders' to reach: Ratel without a driver, on its CPU twins, is in the ratios only.
    """
    rate, found = sgemm_rate(engines), []
    ratel = {name: e for name, e in engines.items() if e["kind"] == "ratel" and e["driver"]}
    for part, what in PARTS.items():
        timed = {name: e for name, e in ratel.items() if part in e["seconds"]}
        if not timed:
            continue
        best = min(timed, key=lambda name: timed[name]["seconds"][part])
        for peer, e in engines.items():
            if e["kind"] in ("ratel", "sgemm") or part not in e["seconds"]:
                continue
            if e["driver"]:  # on a Vulkan driver: beside Ratel on the same one
                ours = [name for name in timed if timed[name]["driver"] == e["driver"]]
                limit = 0.1
            else:
                ours, limit = [best], {"stable-diffusion.cpp": 1.5, "candle": 1.0}.get(e["kind"])
            for name in ours:
                ratio = timed[name]["seconds"][part] / e["seconds"][part]
                wanted = f"at most {limit:.2f}" if limit else "-"
                found.append(Target(f"{what}: {name} / {peer}", wanted, ratio, ratio <= limit if limit else None))
    for name, engine in ratel.items():
        if engine["share"] is not None:
            reached = share(engine, rate)
            met = None if reached is None else reached >= engine["share"]
            what = f"share of sgemm in a {PARTS['unet']}: {name}"
            found.append(Target(what, f"at least {engine['share']:.2f}", reached, met))
    for name, engine in engines.items():
        if memory := engine.get("device_bytes"):
            over = memory["held"] / memory["planned"]
            found.append(Target(f"device memory over the plan: {name}", "at most 1.05", over, over <= 1.05))
            gigabytes = memory["activations_512_f16"] / 1e9
            what = f"activations of SD 1.5, 512 px, f16, in GB: {name}"
            found.append(Target(what, "at most 0.60", gigabytes, gigabytes <= 0.6))
    return found


def row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table, the first column to the left and the others to the right."""
    return [row(head), "|---|" + "---:|" * (len(head) - 1), *map(row, rows)]


def number(value: float | None, digits: int = 2) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def markdown(title: str, records: list[dict]) -> str:
    """The report."""
    engines = medians(records)
    rate = sgemm_rate(engines)
    lines = [f"# {title}", "", "Medians over rounds; the spread is that of the rounds, as a share of the median.", ""]
    lines += [f"sgemm of 2048: {rate / 1e9:.0f} GFLOP/s.", ""] if rate else []

    rows = []
    for name, e in engines.items():
        if e["kind"] != "sgemm" and e["seconds"]:
            times = [number(e["seconds"].get(part)) for part in PARTS]
            spread = [f"{e['spread'][part]:.0%}" if part in e["spread"] else "" for part in PARTS]
            reached = share(e, rate)
            shared = "" if reached is None else f"{reached:.0%}"
            rounds = str(max(e["rounds"].values()))
            rows.append([name, times[0], spread[0], times[1], spread[1], shared, rounds])
    head = ["engine", "UNet step, s", "+-", "VAE decode, s", "+-", "share of sgemm (step)", "rounds"]
    lines += table(head, rows) + [""]

    for part, ours in ratios(engines).items():
        peers = list(next(iter(ours.values())))
        if peers:
            lines += [f"Ratel's time over the peer's, {PARTS[part]}:", ""]
            rows = [[name, *(number(row[peer]) for peer in peers)] for name, row in ours.items()]
            lines += table(["", *peers], rows) + [""]

    said = {None: "", True: "met", False: "missed"}
    rows = [[t.what, t.wanted, number(t.found), said[t.met]] for t in targets(engines)]
    lines += ["Targets:", ""] + table(["", "wanted", "found", ""], rows) + [""]

    rows = [
        [name, *(f"{e[key] / MIB:.0f}" for key in ("checkpoint_bytes", "peak_bytes", "peak_private_bytes")),
         number(e["peak_bytes"] / e["checkpoint_bytes"])]
        for name, e in engines.items() if e.get("checkpoint_bytes")
    ]  # fmt: skip
    lines += ["Memory of the host, MiB. A software driver's device memory is in it.", ""]
    lines += table(["engine", "checkpoint", "peak", "of it private", "peak / checkpoint"], rows) + [""]

    rows = [
        [name, *(f"{e['device_bytes'][key] / MIB:.0f}" for key in ("held", "planned", "activations_512_f16"))]
        for name, e in engines.items()
        if e.get("device_bytes")
    ]
    if rows:
        lines += ["Memory of the device, MiB, while a picture is drawn, and as planned:", ""]
        lines += table(["", "held", "planned", "activations planned for 512 px, f16"], rows) + [""]

    errors = [f"- {name}: {error}" for name, e in engines.items() for error in e["errors"]]
    lines += ["What failed:", "", *errors, ""] if errors else []
    return "\n".join(lines)


def plain(title: str, records: list[dict]) -> dict:
    """The same as data."""
    engines = medians(records)
    return {
        "title": title,
        "sgemm_flops_per_second": sgemm_rate(engines),
        "engines": {name: {**e, "share_of_sgemm": share(e, sgemm_rate(engines))} for name, e in engines.items()},
        "ratios": ratios(engines),
        "targets": [asdict(target) for target in targets(engines)],
        "records": records,
    }
