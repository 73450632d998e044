"""The engines that are compared: how each is run, and how its times are read from what it prints.

An engine is an entry of a JSON file, whose key is the name it has in the report:

    kind         ratel, diffusers, candle, stable-diffusion.cpp or sgemm; ratel-memory: Ratel, for its device memory
    command      the program and what comes before it; diffusers and sgemm: the Python that has torch, numpy
    environment  variables to set
    driver       ratel and stable-diffusion.cpp on Vulkan: its name, to pair engines on the same driver;
                 without one, Ratel's times are compared but meet no target
    device       ratel: as --device takes it
    once         too slow for every round: runs in the first only
    parts        the parts whose times count, where others run elsewhere or differently: a list of unet and vae
    share        ratel: the least share of sgemm's rate that a guided step has to reach
    options      ratel and stable-diffusion.cpp: further options
"""

import json
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import children
from report import PARTS

HERE = Path(__file__).resolve().parent
KINDS = ("ratel", "ratel-memory", "diffusers", "candle", "stable-diffusion.cpp", "sgemm")
PROMPT = "a honey badger under a red star"


@dataclass(frozen=True)
class Engine:
    """An entry of the file of engines."""

    name: str
    kind: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    driver: str | None = None
    device: str | None = None
    once: bool = False
    parts: list[str] | None = None
    share: float | None = None
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """What is timed. folder: a diffusers folder in f32, for the engines of f32; file: the same model as a single file
    in f16. runs: how often each part is timed in a process, after once to warm up."""

    folder: Path
    file: Path
    pixels: int
    runs: int
    limit: float


@dataclass(frozen=True)
class Measured:
    """What a process measured. seconds: of each timed run, by part (`unet`: a guided step; `vae`: a decode; `sgemm`).
    flops: of a run of a part, where the engine says. peaks: see children.Finished. device_bytes: see device_memory."""

    seconds: dict[str, list[float]]
    flops: dict[str, float] = field(default_factory=dict)
    checkpoint_bytes: int = 0
    peak_bytes: int = 0
    peak_private_bytes: int = 0
    device_bytes: dict[str, int] = field(default_factory=dict)


def read_engines(path: Path) -> list[Engine]:
    """The engines of a file. Raises ValueError that names what is wrong."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    engines = []
    for name, entry in entries.items():
        try:
            engine = Engine(name=name, **entry)
        except TypeError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
        if engine.kind not in KINDS:
            raise ValueError(f"{path}: {name}: kind is one of {', '.join(KINDS)}, not {engine.kind}")
        unknown = set(engine.parts or ()) - set(PARTS)
        if unknown:
            raise ValueError(f"{path}: {name}: parts are {' and '.join(PARTS)}, not {', '.join(sorted(unknown))}")
        if not engine.command:
            raise ValueError(f"{path}: {name}: command is empty")
        engines.append(engine)
    return engines


def measure(engine: Engine, task: Task) -> Measured:
    """Runs an engine in a process of its own. Raises children.Failed."""
    if engine.kind == "ratel-memory":
        return Measured({}, device_bytes=device_memory(engine, task))
    command, checkpoint = command_line(engine, task)
    finished = children.run(command, task.limit, engine.environment)
    read = {"ratel": read_ratel, "stable-diffusion.cpp": read_sd_cpp}.get(engine.kind, read_json)
    try:
        seconds, flops = read(f"{finished.log}\n{finished.output}" if read is read_sd_cpp else finished.output)
    except (ValueError, KeyError, IndexError) as error:
        raise children.Failed(f"no times in what it printed ({error!r})", finished.output, finished.log) from error
    if engine.parts is not None:
        seconds = {part: times for part, times in seconds.items() if part in engine.parts}
    return Measured(seconds, flops, size(checkpoint), finished.peak_bytes, finished.peak_private_bytes)


def command_line(engine: Engine, task: Task) -> tuple[list[str], Path | None]:
    """What to run, and the checkpoint that it reads."""
    pixels, runs = str(task.pixels), str(task.runs)
    match engine.kind:
        case "ratel":
            options = ["bench", "--model", str(task.file), "--width", pixels, "--only", "unet", "--only", "vae"]
            device = ["--device", engine.device] if engine.device else []
            ends = ["--runs", runs, "--format", "json", *device, *engine.options]
            return [*engine.command, *options, *ends], task.file
        case "diffusers":
            return [*engine.command, str(HERE / "time_diffusers.py"), str(task.folder), pixels, runs], task.folder
        case "candle":
            return [*engine.command, str(task.folder), pixels, runs], task.folder
        case "stable-diffusion.cpp":
            # the first step warms up
            steps = str(task.runs + 1)
            drawing = ["-p", PROMPT, "-W", pixels, "-H", pixels, "--steps", steps, "--cfg-scale", "7.5", "-s", "1"]
            picture = Path(tempfile.gettempdir()) / "time-stable-diffusion-cpp.png"
            sampler = ["--sampling-method", "euler", "-o", str(picture)]
            return [*engine.command, "-m", str(task.file), *drawing, *sampler, "-v", *engine.options], task.file
        case _:
            return [*engine.command, str(HERE / "time_sgemm.py"), runs], None


def device_memory(engine: Engine, task: Task) -> dict[str, int]:
    """The most that Ratel held on its device while it drew a picture of one step, what its plan had said that would be,
    and what the plan says of SD 1.5 at 512 pixels in f16, weights excluded. Raises children.Failed."""
    on = ["--device", engine.device] if engine.device else []
    model = ["--model", str(task.file), "--width", str(task.pixels), "--height", str(task.pixels), *on]
    large = ["--arch", "sd15", "--width", "512", "--height", "512", "--precision", "f16"]
    commands = {
        "held": ["profile", *model, "--steps", "1", "--once", "--no-roof", "--json"],
        "planned": ["plan", *model],
        "activations_512_f16": ["plan", *large],
    }
    output = {
        key: children.run([*engine.command, *options], task.limit, engine.environment).output
        for key, options in commands.items()
    }
    try:
        return {
            "held": json.loads(output["held"])["summary"]["peak_bytes"],
            "planned": read_mib(r"^peak: ([\d.]+) MiB", output["planned"]),
            "activations_512_f16": read_mib(r"activations ([\d.]+) MiB", output["activations_512_f16"]),
        }
    except (ValueError, KeyError) as error:
        raise children.Failed(f"no memory in what it printed ({error!r})", "\n".join(output.values())) from error


def read_mib(pattern: str, text: str) -> int:
    """The largest of the numbers of MiB that a pattern finds, in bytes. Raises ValueError where there is none."""
    return round(2**20 * max(float(number) for number in re.findall(pattern, text, re.MULTILINE)))


def size(checkpoint: Path | None) -> int:
    """Bytes of a checkpoint's weights."""
    if checkpoint is None:
        return 0
    files = checkpoint.rglob("*.safetensors") if checkpoint.is_dir() else [checkpoint]
    return sum(file.stat().st_size for file in files)


def read_json(output: str) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The last line that is an object, of seconds by part: libraries, too, write what they like. Raises ValueError
    where there is none."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise ValueError("no line of JSON")
    seconds = json.loads(lines[-1])
    return {part: [float(time) for time in times] for part, times in seconds.items()}, {}


def read_ratel(output: str) -> tuple[dict[str, list[float]], dict[str, float]]:
    """`ratel bench --format json`, whose medians stand for its runs."""
    rows = {row["test"]: row for row in json.loads(output)["rows"]}
    found = {part: rows[test] for part, test in (("unet", "UNet step"), ("vae", "VAE decode"))}
    seconds = {part: [row["seconds"]] for part, row in found.items()}
    return seconds, {part: row["flops"] for part, row in found.items()}


def read_sd_cpp(output: str) -> tuple[dict[str, list[float]], dict[str, float]]:
    """stable-diffusion.cpp's log. After each step its progress bar has the mean of all so far, as `2/3 - 3.90s/it` or
    `2/3 - 1.25it/s`; a step's own time is the difference of two sums. The bar of something else has another total. Of
    one that ended before the decode was done, there are the steps alone."""
    bars = re.findall(r"(\d+)/(\d+) - ([\d.]+)(s/it|it/s)", output)
    means = {}
    for step, total, number, unit in bars:
        if total == bars[-1][1]:
            means[int(step)] = float(number) if unit == "s/it" else 1 / float(number)
    sums = [0.0] + [step * means[step] for step in range(1, len(means) + 1)]
    steps = [after - before for before, after in zip(sums, sums[1:])]
    decoded = re.findall(r"decode_first_stage completed, taking ([\d.]+)s", output)
    return {"unet": steps[1:] or [steps[0]], **({"vae": [float(decoded[-1])]} if decoded else {})}, {}


def sd_cpp_device(output: str) -> str | None:
    """The Vulkan device that stable-diffusion.cpp's log of all details names; none where it found none."""
    found = re.search(r"ggml_vulkan: 0 = ([^|\n]+)", output)
    return found and found[1].strip()


if __name__ == "__main__":
    sys.exit("this is a part of compare.py")
