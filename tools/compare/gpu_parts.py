"""What tools/compare/gpu runs, in which order, and when a part's output is good for nothing."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import children
import engines

HERE = Path(__file__).resolve().parent
MAKE_CHECKPOINT = HERE / "checkpoint.py"
NOT_READ = (ValueError, KeyError, IndexError, TypeError, AttributeError, ZeroDivisionError)
"""What reading output raises that is not as it should be."""

PYTORCH = """
import torch, diffusers, transformers
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'without a GPU'
print(f'PyTorch {torch.__version__}, diffusers {diffusers.__version__}, {gpu}')
"""
TRANSFORMER = "attentions.0.transformer_blocks.0"
SD15_LAYERS = (
    ("conv2d", "unet.down_blocks.0.resnets.0.conv1"),
    ("conv2d", "unet.down_blocks.1.resnets.1.conv1"),
    ("conv2d", "unet.mid_block.resnets.0.conv1"),
    ("matmul", f"unet.down_blocks.0.{TRANSFORMER}.ff.net.2"),
    ("attention", f"unet.down_blocks.0.{TRANSFORMER}.attn1"),
    ("attention", f"unet.down_blocks.0.{TRANSFORMER}.attn2"),
    ("conv2d", "vae.decoder.up_blocks.2.resnets.1.conv1"),
)
SDXL_LAYERS = (
    ("conv2d", "unet.down_blocks.0.resnets.0.conv1"),
    ("matmul", f"unet.mid_block.{TRANSFORMER}.ff.net.2"),
    ("attention", f"unet.down_blocks.1.{TRANSFORMER}.attn1"),
    ("attention", f"unet.mid_block.{TRANSFORMER}.attn1"),
)
STABLE_DIFFUSION_CPP = {
    "": [],
    ", flash attention": ["--diffusion-fa"],
    ", flash attention, direct convolution": ["--diffusion-fa", "--diffusion-conv-direct", "--vae-conv-direct"],
}
"""Its options, by what its name in the report goes on with: which is fastest depends on the card."""


@dataclass(frozen=True)
class Model:
    """A model to measure. layers: an op and a module of it, for `ratel kernels bench`."""

    name: str
    arch: str
    pixels: int
    layers: tuple[tuple[str, str], ...] = ()


MODELS = (Model("sd15", "sd15", 512, SD15_LAYERS), Model("sdxl-sized", "sdxl-sized", 1024, SDXL_LAYERS))
SMALL_MODELS = (
    Model("sd15", "tiny", 64, (SD15_LAYERS[0], *SD15_LAYERS[3:5])),
    Model("sdxl-sized", "odd", 64, SDXL_LAYERS[:1]),
)


@dataclass(frozen=True)
class Part:
    """Something to run. limit: seconds. needs: parts without which there is nothing to run on. check: raises one of
    NOT_READ, or children.Failed, where what was printed is of no use. keep: once it is done, it is not done again."""

    name: str
    command: list[str]
    limit: float
    needs: tuple[str, ...] = ()
    check: Callable[[children.Finished], object] | None = None
    keep: bool = True


@dataclass(frozen=True)
class Amount:
    """How much is done. seconds: that each kernel is timed for."""

    runs: int
    picture_runs: int
    steps: int
    profiles: int
    seconds: float


FULL = Amount(runs=20, picture_runs=3, steps=20, profiles=3, seconds=0.5)
SMOKE = Amount(runs=1, picture_runs=1, steps=2, profiles=1, seconds=0.02)


def check_gpu(finished: children.Finished) -> None:
    """Whether `ratel devices --json` lists a GPU: on a software driver, the large models take hours."""
    kinds = [device["kind"] for device in json.loads(finished.output)]
    if not any("GPU" in kind for kind in kinds):
        found = f"only {', '.join(kinds)}" if kinds else "nothing"
        hint = "are Vulkan's loader (libvulkan.so.1) and the driver's JSON there? VK_DRIVER_FILES can name the latter"
        raise children.Failed(f"ratel finds {found}; {hint}")


def check_json(finished: children.Finished) -> None:
    """Whether there is an object with rows."""
    json.loads(finished.output)["rows"]


def check_times(finished: children.Finished) -> None:
    """Whether there are times by part."""
    engines.read_json(finished.output)


def check_stable_diffusion_cpp(finished: children.Finished) -> None:
    """Whether there are times, and of Vulkan: without a device it computes on the processor, and doesn't mind."""
    text = f"{finished.log}\n{finished.output}"
    engines.read_sd_cpp(text)
    if engines.sd_cpp_device(text) is None:
        raise children.Failed("it did not run on Vulkan")


def plan(args: argparse.Namespace) -> list[Part]:
    """All parts. First what the targets are about, for every model; what takes longest for the least comes last."""
    models, amount = (SMALL_MODELS, SMOKE) if args.smoke else (MODELS, FULL)
    ratel, device = [args.ratel], ["--device", args.device] if args.device else []
    # who names a device, or tries this out, may have no GPU
    gpu = () if args.smoke or args.device else ("GPU",)
    found = [Part("devices", [*ratel, "devices"], 60, keep=False)]
    if gpu:
        found.append(Part("GPU", [*ratel, "devices", "--json"], 60, check=check_gpu, keep=False))
    found.append(Part("PyTorch", [sys.executable, "-c", PYTORCH], 180, keep=False))
    found.append(Part("roofline", [*ratel, "roofline", "--json", *device], 300, gpu))
    by_model = [of_model(args, model, amount, gpu, device) for model in models]
    for first, _, _ in by_model:
        found += first
    if args.stable_diffusion_cpp:
        found += stable_diffusion_cpp(args)
    only = ["--only", "group_norm"] if args.smoke else []
    found.append(Part("selftest", [*ratel, "selftest", "--json", *only, *device], 600, gpu, check_json))
    for _, second, _ in by_model:
        found += second
    for _, _, last in by_model:
        found += last
    return found


def of_model(
    args: argparse.Namespace, model: Model, amount: Amount, gpu: tuple[str, ...], device: list[str]
) -> tuple[list[Part], list[Part], list[Part]]:
    """The parts of a model: those that come first, then, last."""
    ratel, python = [args.ratel], [sys.executable]
    folder = args.models / f"{model.arch}-f16"
    making = [*python, str(MAKE_CHECKPOINT), str(folder), "--arch", model.arch, "--dtype", "f16"]
    # one that was made elsewhere needs no PyTorch
    checkpoint = Part(f"{model.name} checkpoint", making, 900, () if folder.exists() else ("PyTorch",), keep=False)
    on = ["--model", str(folder), "--width", str(model.pixels), "--height", str(model.pixels)]

    bench = [*ratel, "bench", *on, "--format", "json", *device]
    # the picture by itself: where it takes too long, the steps were timed
    step = [*bench, "--runs", str(amount.runs), "--only", "text-encoder", "--only", "unet", "--only", "vae"]
    picture = [*bench, "--runs", str(amount.picture_runs), "--only", "picture", "--steps", str(amount.steps)]
    # of Euler's method, a step is one call of the model; of the checkpoint's own, the first one is two
    drawing = [*ratel, "profile", engines.PROMPT, *on, "--sampler", "euler", "--steps", "3", "--seed", "1", *device]
    drawing += ["--repeat", str(amount.profiles), "--json"]
    lines, page = (str(args.output / f"{model.name}.{ending}") for ending in ("jsonl", "html"))
    torch = ["--device", args.torch_device or ("auto" if args.smoke else "cuda"), "--dtype", "f16"]
    timed = [*python, str(HERE / "time_diffusers.py"), str(folder), str(model.pixels), str(amount.runs), *torch]
    mode = args.compile_mode or ("traced" if args.smoke else "max-autotune")

    def of(what: str, command: list[str], limit: float, check, needs: tuple[str, ...] = gpu) -> Part:
        return Part(f"{model.name} {what}", command, limit, (*needs, checkpoint.name), check)

    first = [
        checkpoint,
        of("bench", step, 600, check_json),
        of("diffusers eager", timed, 600, check_times, ()),
        of("bench tuned", [*step, "--tune", "auto"], 600, check_json),
        of("profile", [*drawing, "-o", lines], 600, check_json),
    ]
    second = [of("picture", picture, 600, check_json)]
    second.append(of("profile tuned", [*drawing, "--tune", "auto", "-o", page], 600, check_json))
    for op, layer in model.layers:
        timing = ["--layer", layer, *on, "--seconds", str(amount.seconds), "--json", *device]
        second.append(of(f"kernels {layer}", [*ratel, "kernels", "bench", op, *timing], 120, check_json))
    return first, second, [of("diffusers compiled", [*timed, "--compile", mode], 1500, check_times, ())]


def stable_diffusion_cpp(args: argparse.Namespace) -> list[Part]:
    """The peer that runs on Vulkan too, on the same weights as SD 1.5 above, in one file. It knows no small models, so
    to try it out it draws a small picture."""
    pixels, steps = ("128", "1") if args.smoke else ("512", "20")
    file = args.models / "sd15-f16.safetensors"
    making = [str(MAKE_CHECKPOINT), str(file), "--arch", "sd15", "--layout", "single", "--dtype", "f16"]
    lacking = () if file.exists() else ("PyTorch",)
    checkpoint = Part("stable-diffusion.cpp checkpoint", [sys.executable, *making], 900, lacking, keep=False)
    drawing = [args.stable_diffusion_cpp, "-m", str(file), "-p", engines.PROMPT, "-W", pixels, "-H", pixels]
    drawing += ["--sampling-method", "euler", "--steps", steps, "--cfg-scale", "7.5", "-s", "1", "-v"]
    drawing += ["-o", str(args.output / "stable-diffusion-cpp.png")]
    variants = list(STABLE_DIFFUSION_CPP.items())[: 1 if args.smoke else None]
    return [
        checkpoint,
        *(
            Part(f"sd15 stable-diffusion.cpp{name}", [*drawing, *options], 600, (checkpoint.name,),
                 check_stable_diffusion_cpp)
            for name, options in variants
        ),
    ]  # fmt: skip
