"""Times diffusers part by part, on the processor or a CUDA device: a guided step of the UNet (a batch of two) and a
decode of the VAE.

    python time_diffusers.py CHECKPOINT_FOLDER PIXELS RUNS [--device cuda] [--dtype f16] [--compile MODE] [--only unet]

Prints lines of JSON with seconds of each run by part, without the first runs of each, which warm up and compile. There
is one after each part, with all until then, so that one that fails or takes too long does not lose the one before.
"""

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

TEXT_TOKENS = 77
TRACED = "traced"
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


def seconds(run, is_gpu: bool, runs: int, warm: int) -> list[float]:
    """Of each run after those that warm up. Raises ValueError where a result is not finite: arithmetic on it may be
    faster."""
    times = []
    for _ in range(warm + runs):
        begun = time.perf_counter()
        result = run()
        if is_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
        if not torch.isfinite(result).all():
            raise ValueError("the result is not finite")
    return times[warm:]


def time_part(part: str, args: argparse.Namespace, device: torch.device) -> list[float]:
    """Loads a part of the model and times it."""
    kind = {"device": device, "dtype": {"f32": torch.float32, "f16": torch.float16}[args.dtype]}
    is_gpu = device.type == "cuda"
    vae = json.loads((args.folder / "vae/config.json").read_text(encoding="utf-8"))
    side = args.pixels // 2 ** (len(vae["block_out_channels"]) - 1)
    model = PARTS[part].from_pretrained(args.folder / part, torch_dtype=kind["dtype"], local_files_only=True)
    model = model.to(device).eval()
    if is_gpu:
        model = model.to(memory_format=torch.channels_last)
    run = call(part, model, side, **kind)
    if args.compile:
        how = {"backend": "eager"} if args.compile == TRACED else {"mode": args.compile}
        run = torch.compile(run, **how)
    return seconds(run, is_gpu, args.runs, warm=3 if is_gpu else 1)


@torch.inference_mode()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pixels", type=int)
    parser.add_argument("runs", type=int)
    parser.add_argument("--device", default="cpu", help="PyTorch's, such as cuda; auto: cuda where there is one")
    parser.add_argument("--dtype", choices=("f32", "f16"), default="f32")
    parser.add_argument("--compile", metavar="MODE", help=f"torch.compile's mode, or {TRACED}: compile nothing")
    parser.add_argument("--only", choices=PARTS, help="the other part is left out")
    args = parser.parse_args()

    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(best if args.device == "auto" else args.device)
    found, last = {}, ""
    for part in [args.only] if args.only else PARTS:
        try:
            found[part] = time_part(part, args, device)
        except Exception as error:  # whatever a library raises, the other part may do
            traceback.print_exc()
            last = f"{part}: {error}"[:500]
        if found:
            print(json.dumps(found), flush=True)
    if last:
        sys.exit(" ".join(last.split()))  # on a line, where the last one is what is shown


if __name__ == "__main__":
    main()
