"""Generates pictures with diffusers, on the CPU in f32, and keeps what a comparison needs.

    python run_reference.py models/sd15 -o out --prompt "a cat" --width 256 --height 256 --steps 4 --sampler ddim
    python run_reference.py models/sd15.safetensors --config models/sd15 -o out --sampler dpm++2m --schedule karras
    python run_reference.py models/sd15 -o out --prompt "a cat" --init-image photo.png --strength 0.6

Writes into the output folder `result.safetensors` (key `latents`, and more with --dump), one PNG per image, and
`run.json` (the request, the timesteps, the seconds each part took). The README says which noise is drawn when.
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import diffusers
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from reference import Request, Result, generate, has_vae, load_pipeline
from samplers import SAMPLERS, SCHEDULES
from trace_modules import Trace

DUMPS = ("noise", "steps", "embeddings")


def flag(text: str) -> tuple[str, object]:
    """A scheduler flag written name=value, the value as JSON or else as text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def result_tensors(result: Result, dump: list[str]) -> dict[str, torch.Tensor]:
    """The tensors to save."""
    tensors = {"latents": result.latents}
    if "noise" in dump:
        tensors["noise"] = result.noise
    if "steps" in dump:
        tensors["step_latents"] = torch.stack(result.step_latents)
    if "embeddings" in dump:
        tensors["embeddings"] = result.embeddings
        tensors["ids"] = result.ids.float()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def init_image(path: Path, width: int | None, height: int | None) -> Image.Image:
    """A picture to start from, RGB: as it is but for what multiples of 8 leave over on both sides, as Ratel takes it; or
    stretched to a size (Ratel's --fit stretch)."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    if width and height:
        return image.resize((width, height), Image.Resampling.LANCZOS)
    width, height = image.width // 8 * 8, image.height // 8 * 8
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def save_pictures(result: Result, folder: Path) -> None:
    """Writes 0.png, 1.png, ..."""
    for number, picture in enumerate(result.pictures):
        pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--config", type=Path, help="folder with what the checkpoint lacks: a single file's configs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--prompt", action="append", help="several make a batch")
    parser.add_argument("--negative", default="")
    parser.add_argument("--width", type=int, help="a multiple of 8; default: that of --init-image, else 512")
    parser.add_argument("--height", type=int, help="likewise")
    parser.add_argument("--init-image", type=Path, metavar="FILE", help="start from this picture: image to image")
    parser.add_argument("--strength", type=float, default=0.8, help="share of the steps that are run from it")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=7.5, help="1 or less: no guidance, a single UNet call per step")
    parser.add_argument("--sampler", choices=SAMPLERS, default="ddim")
    parser.add_argument("--schedule", choices=SCHEDULES, default="normal")
    parser.add_argument("--flag", type=flag, action="append", default=[], metavar="NAME=VALUE", help="scheduler flag")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1, help="images of a single prompt")
    parser.add_argument("--eta", type=float, default=0.0)
    parser.add_argument("--clip-skip", type=int)
    parser.add_argument("--dump", action="append", choices=DUMPS, default=[])
    parser.add_argument("--trace", type=Path, metavar="FILE", help="also trace every module of the run")
    parser.add_argument("--trace-steps", default="0", help="calls of the UNet to trace, such as 0,3")
    parser.add_argument("--trace-only", default="", metavar="REGEX")
    args = parser.parse_args()
    if args.init_image and (args.width is None) != (args.height is None):
        parser.error("--init-image takes both --width and --height, or neither")
    if args.init_image and "noise" in args.dump:
        parser.error("--dump noise: from an image, the pipeline draws its noise itself")
    image = init_image(args.init_image, args.width, args.height) if args.init_image else None

    pipeline = load_pipeline(args.checkpoint, args.config)
    request = Request(
        prompts=args.prompt or ["a photograph of an astronaut riding a horse"],
        negative=args.negative,
        width=image.width if image else args.width or 512,
        height=image.height if image else args.height or 512,
        steps=args.steps,
        cfg=args.cfg,
        sampler=args.sampler,
        schedule=args.schedule,
        seed=args.seed,
        batch=args.batch,
        eta=args.eta,
        clip_skip=args.clip_skip,
        scheduler_overrides=dict(args.flag),
    )
    trace = None
    if args.trace:
        trace = Trace(args.trace_only, {int(step) for step in args.trace_steps.split(",")})
        trace.hook_unet(pipeline.unet)
        if has_vae(pipeline):
            trace.hook_decoder(pipeline.vae)
    result = generate(pipeline, request, image, args.strength)
    args.output.mkdir(parents=True, exist_ok=True)
    save_file(result_tensors(result, args.dump), args.output / "result.safetensors")
    (args.output / "result.safetensors").chmod(0o644)
    save_pictures(result, args.output)
    run = {
        "request": asdict(request),
        **({"init_image": str(args.init_image), "strength": args.strength} if image else {}),
        "timesteps": result.timesteps,
        "seconds": result.seconds,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": {m.__name__: m.__version__ for m in (torch, diffusers, transformers)},
    }
    (args.output / "run.json").write_text(json.dumps(run, indent=2) + "\n")
    if trace:
        trace.save(args.trace)
    print(f"{len(result.pictures)} pictures, {json.dumps(result.seconds)} s, in {args.output}")


if __name__ == "__main__":
    main()
