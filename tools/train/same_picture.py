"""The same prompt, seed and settings through diffusers and through Ratel: how far apart in value, and side by side.

    python same_picture.py --model DIR --prompt "a red dragon over a city at night" --seed 1 -o same.png

diffusers runs on the CPU in f32 with exactly the noise that Ratel draws (tools/reference/reference.py); Ratel runs in
f32 unless --precision says otherwise. The picture shows diffusers', Ratel's, and their difference eight times enlarged.
Exit code 1 if the latents differ by more than --tolerance, relative to their own size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file

import pictures
from contact_sheet import sheet

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))

import reference  # noqa: E402
from compare import tensor_error  # noqa: E402
from samplers import SAMPLERS  # noqa: E402


def sampler_of(scheduler: dict) -> str:
    """Ratel's name of the sampler that a checkpoint's scheduler_config.json asks for."""
    for name, sampler in SAMPLERS.items():
        same_flags = all(scheduler.get(flag) == value for flag, value in sampler.flags.items())
        if sampler.scheduler.__name__ == scheduler["_class_name"] and same_flags:
            return name
    raise SystemExit(f"{scheduler['_class_name']}: no sampler of that name; choose one by --sampler")


def request_of(args: argparse.Namespace, pipeline) -> reference.Request:
    """What both are asked for: the arguments, and for what they leave open the model's own settings."""
    own = args.model / "ratel.json"
    own = json.loads(own.read_text(encoding="utf-8")) if own.exists() else {}
    native = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return reference.Request(
        prompts=[args.prompt],
        negative=args.negative,
        width=args.width or native,
        height=args.height or native,
        steps=args.steps or own.get("num_inference_steps", 20),
        cfg=args.cfg_scale or own.get("guidance_scale", 7.5),
        sampler=args.sampler or sampler_of(pipeline.scheduler_file),
        seed=args.seed,
    )


def by_ratel(args: argparse.Namespace, request: reference.Request, folder: Path) -> tuple[torch.Tensor, Image.Image]:
    """The last latents (1, C, H, W) and the picture."""
    given = {
        **pictures.options(args),
        "--prompt": args.prompt,
        "--negative-prompt": args.negative,
        "--width": str(request.width),
        "--height": str(request.height),
        "--steps": str(request.steps),
        "--cfg-scale": str(request.cfg),
        "--sampler": request.sampler,
        "--seed": str(request.seed),
        "--precision": args.precision or "f32",
        "--latents-out": str(folder / "latents.safetensors"),
        "--output": str(folder / "ratel.png"),
    }
    words = [word for pair in given.items() for word in pair]
    subprocess.run([args.ratel, "generate", *words, "--json"], check=True, stdout=subprocess.DEVNULL)
    with Image.open(folder / "ratel.png") as image:
        return load_file(folder / "latents.safetensors")["latents"], image.convert("RGB")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a red dragon over a city at night")
    parser.add_argument("--negative", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.png")
    pictures.add_arguments(parser)
    args = parser.parse_args()
    if args.model is None:
        parser.error("--model: name the diffusers folder; diffusers can't look into the program")

    pipeline = reference.load_pipeline(args.model)
    request = request_of(args, pipeline)
    result = reference.generate(pipeline, request)
    pixels = (result.pictures[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with tempfile.TemporaryDirectory() as folder:
        latents, picture = by_ratel(args, request, Path(folder))
    error, _ = tensor_error(result.latents, latents)
    apart = numpy.abs(pixels.astype(int) - numpy.asarray(picture).astype(int))
    print(f"{request.steps} steps of {request.sampler}, guidance {request.cfg}, {request.width}x{request.height}")
    print(f"latents: relative error {error:.1e}")
    print(f"pixels, of 255: mean {apart.mean():.3f}, largest {apart.max()}, the same in {(apart == 0).mean():.1%}")
    if args.output:
        enlarged = Image.fromarray((8 * apart).clip(0, 255).astype(numpy.uint8))
        captions = ["diffusers", "Ratel", "difference, 8 times"]
        sheet([Image.fromarray(pixels), picture, enlarged], captions, 3).save(args.output)
    if not error <= args.tolerance:
        raise SystemExit(f"the latents differ by more than {args.tolerance:.0e}")


if __name__ == "__main__":
    main()
