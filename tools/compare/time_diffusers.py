"""Times diffusers part by part, on the processor or a CUDA device: a guided step of the UNet (a batch of two) and a
decode of the VAE.

    python time_diffusers.py CHECKPOINT_FOLDER PIXELS RUNS [--device cuda] [--dtype f16] [--compile MODE] [--only unet]

Prints a line of JSON with seconds of each run by part, without the first runs of each, which warm up and compile.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

TEXT_TOKENS = 77
PARTS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def call(part: str, model, side: int, **kind):
    """A call of the model on inputs made beforehand; side: of the latents."""
    generator = torch.Generator("cpu").manual_seed(0)
    latents = torch.randn((2 if part == "unet" else 1, 4, side, side), generator=generator).to(**kind)
    if part == "vae":
        return lambda: model.decode(latents).sample
    context = torch.randn((2, TEXT_TOKENS, model.config.cross_attention_dim), generator=generator).to(**kind)
    timestep = torch.tensor(500, device=kind["device"])
    return lambda: model(latents, timestep, context).sample


def seconds(run, device: str, runs: int, warm: int) -> list[float]:
    """Of each run after those that warm up. A result that is not finite is an error."""
    times = []
    for _ in range(warm + runs):
        begun = time.perf_counter()
        result = run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
        if not torch.isfinite(result).all():
            raise SystemExit("the result is not finite")
    return times[warm:]


@torch.inference_mode()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pixels", type=int)
    parser.add_argument("runs", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("f32", "f16"), default="f32")
    parser.add_argument("--compile", metavar="MODE", help="torch.compile's mode, such as max-autotune")
    parser.add_argument("--only", choices=PARTS, help="the other part is left out")
    args = parser.parse_args()

    kind = {"device": args.device, "dtype": {"f32": torch.float32, "f16": torch.float16}[args.dtype]}
    vae = json.loads((args.folder / "vae/config.json").read_text(encoding="utf-8"))
    side = args.pixels // 2 ** (len(vae["block_out_channels"]) - 1)
    found = {}
    for part in [args.only] if args.only else PARTS:
        model = PARTS[part].from_pretrained(args.folder / part, torch_dtype=kind["dtype"], local_files_only=True)
        model = model.to(args.device).eval()
        if args.device == "cuda":
            model = model.to(memory_format=torch.channels_last)
        run = call(part, model, side, **kind)
        if args.compile:
            run = torch.compile(run, mode=args.compile)
        found[part] = seconds(run, args.device, args.runs, warm=3 if args.device == "cuda" else 1)
        del model, run
    print(json.dumps(found))


if __name__ == "__main__":
    main()
