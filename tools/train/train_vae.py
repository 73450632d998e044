"""Trains cub's autoencoder on the pictures of a folder of data.py.

    python train_vae.py --data DIR -o RUN [--minutes 35] [--resume] [--from FOLDER]

Most batches are random crops, which cost a quarter; every `--whole-every`th one and the last `--whole-share` of the
time are whole pictures, since group norms see other statistics there. The learning rate falls along a cosine tied to
`--minutes`, so that a run ends annealed. `--resume` goes on from the last checkpoint: a cut run takes the steps that
it would have taken, a finished one needs more `--minutes`. `--from` starts a new run from earlier weights.

The run's folder holds run.json, log.jsonl, checkpoint.pt, sheets of round trips (round-trip-*.png: a row of drawings
above what the autoencoder makes of them), and vae/: the averaged (EMA) weights as diffusers saves them, with the
scaling_factor that makes the latents' standard deviation 1.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cub_model import autocast, load_vae

WIDTHS = (16, 32, 64, 96)
GROUPS = 8
STATISTICS = 2048  # pictures that the scaling factor is taken from
CHUNK = 16  # pictures of a batch where nothing is learnt


def build(widths: tuple[int, ...]) -> AutoencoderKL:
    """SD's autoencoder: 4 latent channels, an eighth of the side. widths: from pixels to latents."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=GROUPS,
        sample_size=128,
        force_upcast=False,
    )


@dataclass
class State:
    """Everything that a checkpoint holds. The generator draws crops, flips and the posterior's noise."""

    vae: AutoencoderKL
    average: AutoencoderKL
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    pictures: float = 0.0
    seconds: float = 0.0


def new_state(args, device: torch.device) -> State:
    """A fresh autoencoder, or that of `--from`. Only convolutions and matrices decay."""
    torch.manual_seed(args.seed)
    vae = load_vae(args.start).requires_grad_(True) if args.start else build(args.widths)
    vae = vae.to(device, memory_format=torch.channels_last).train()
    decayed = [tensor for tensor in vae.parameters() if tensor.ndim > 1]
    others = [tensor for tensor in vae.parameters() if tensor.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, args.beta2), fused=True)
    average = copy.deepcopy(vae).eval().requires_grad_(False)
    return State(vae, average, optimizer, torch.Generator().manual_seed(args.seed))


def save(state: State, path: Path) -> None:
    """Writes a checkpoint beside its place, then moves it there."""
    content = {name: getattr(state, name).state_dict() for name in ("vae", "average", "optimizer")}
    content |= {name: getattr(state, name) for name in ("step", "pictures", "seconds")}
    partial = path.with_suffix(".partial")
    torch.save(content | {"generator": state.generator.get_state()}, partial)
    os.replace(partial, path)


def restore(state: State, path: Path) -> None:
    """Reads what `save` wrote."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("vae", "average", "optimizer"):
        getattr(state, name).load_state_dict(content[name])
    for name in ("step", "pictures", "seconds"):
        setattr(state, name, content[name])
    state.generator.set_state(content["generator"])


def save_average(average: AutoencoderKL, scale: float, run: Path) -> None:
    """Writes the averaged autoencoder as a diffusers folder, beside its place, then moved there."""
    average.register_to_config(scaling_factor=scale)
    partial, folder = run / "vae.partial", run / "vae"
    shutil.rmtree(partial, ignore_errors=True)
    average.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


class Drawings:
    """Pictures (N, H, W, 3) uint8; the last `held` are kept from training."""

    def __init__(self, path: Path, held: int):
        self.pictures = numpy.load(path, mmap_mode="r")
        self.kept = len(self.pictures) - held
        if self.pictures.ndim != 4 or self.pictures.shape[3] != 3 or self.pictures.dtype != numpy.uint8:
            raise ValueError(f"{path}: not an array of pictures: {self.pictures.dtype} {self.pictures.shape}")
        if self.pictures.shape[1] % 8 or self.pictures.shape[2] % 8:
            raise ValueError(f"{path}: sides are multiples of 8, not {self.pictures.shape[1:3]}")
        if self.kept < 1:
            raise ValueError(f"{path}: {len(self.pictures)} pictures, of which {held} are to be held back")

    def draw(self, count: int, side: int | None, generator: torch.Generator) -> Tensor:
        """`count` random pictures or, with a side, square crops of it; half are mirrored: (count, 3, h, w), -1 to 1."""
        _, height, width, _ = self.pictures.shape
        high, wide = (min(side or limit, limit) for limit in (height, width))

        def below(limit: int) -> list[int]:
            return torch.randint(limit, (count,), generator=generator).tolist()

        choices = zip(below(self.kept), below(height - high + 1), below(width - wide + 1), below(2))
        crops = numpy.empty((count, high, wide, 3), numpy.uint8)
        for crop, (row, top, left, mirrored) in zip(crops, choices):
            part = self.pictures[row, top : top + high, left : left + wide]
            crop[:] = part[:, ::-1] if mirrored else part
        return as_tensor(crops)

    def held(self, count: int | None = None) -> numpy.ndarray:
        """The pictures that training never sees, or the first of them."""
        return self.pictures[self.kept :][:count]


def as_tensor(pictures: numpy.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 as (N, 3, H, W) in [-1, 1], in the memory order that convolutions like."""
    pixels = torch.from_numpy(numpy.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def as_pictures(pixels: Tensor) -> numpy.ndarray:
    """The reverse of as_tensor, rounded to uint8."""
    return (pixels.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def psnr(one: numpy.ndarray, two: numpy.ndarray) -> numpy.ndarray:
    """Peak signal to noise of each pair of pictures (N, H, W, 3) uint8, in dB."""
    errors = (one.astype(numpy.float64) - two).reshape(len(one), -1)
    return 10 * numpy.log10(255**2 / numpy.maximum((errors**2).mean(1), 1e-10))


@torch.inference_mode()
def round_trip(vae: AutoencoderKL, pictures: numpy.ndarray, device: torch.device) -> numpy.ndarray:
    """What the autoencoder makes of pictures: the posterior's mode decoded in f32."""
    batches = (as_tensor(pictures[start : start + CHUNK]).to(device) for start in range(0, len(pictures), CHUNK))
    decoded = (vae.decode(vae.encode(batch).latent_dist.mode()).sample for batch in batches)
    return numpy.concatenate([as_pictures(batch) for batch in decoded])


@torch.inference_mode()
def latent_statistics(vae: AutoencoderKL, pictures: numpy.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over pictures, before scaling."""
    means = []
    for start in range(0, len(pictures), CHUNK):
        with autocast(device):
            means.append(vae.encode(as_tensor(pictures[start : start + CHUNK]).to(device)).latent_dist.mode().float())
    channels = torch.cat(means).cpu().transpose(0, 1).flatten(1)
    return channels.mean(1), channels.std(1)


def scaling_factor(mean: Tensor, deviation: Tensor) -> float:
    """1 over the standard deviation of all channels together, as SD's was found."""
    total = deviation.square().mean() + mean.var(correction=0)
    return float(total.rsqrt())


def sheet(drawings: numpy.ndarray, trips: numpy.ndarray, across: int = 8) -> Image.Image:
    """Rows of drawings, each above the row of their round trips."""
    rows = []
    for start in range(0, len(drawings) - across + 1, across):
        rows += [numpy.concatenate(pictures[start : start + across], axis=1) for pictures in (drawings, trips)]
    return Image.fromarray(numpy.concatenate(rows))


def losses(vae, pixels: Tensor, noise: Tensor, args) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its parts.

    vae: encodes and decodes. pixels: (N, 3, H, W) in [-1, 1]. noise: standard normal, of the latents' shape.
    All parts are means: |error| and error^2 over pixels, |error| of the differences between neighbours (edges), where a
    blurred edge costs most, and the divergence from a standard normal over the latents' elements.
    """
    with autocast(pixels.device):
        posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        decoded = vae.decode(mean + torch.exp(0.5 * logvar) * noise).sample
    error = decoded.float() - pixels
    parts = {
        "l1": error.abs().mean(),
        "l2": error.square().mean(),
        "edges": error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean(),
        "kl": 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(),
    }
    loss = sum(getattr(args, name) * part for name, part in parts.items())
    return loss, {name: part.detach() for name, part in parts.items()}


def learning_rate(args, step: int, seconds: float) -> float:
    """The rate after `step` steps and `seconds` of training: a short warm-up, then a cosine to zero at `--minutes`."""
    share = min(1.0, seconds / (60 * args.minutes))
    return args.lr * min(1.0, (step + 1) / args.warmup) * 0.5 * (1 + math.cos(math.pi * share))


def whole(args, step: int, seconds: float) -> bool:
    """Whether this step sees whole pictures."""
    return step % args.whole_every == 0 or seconds > 60 * args.minutes * (1 - args.whole_share)


def optimise(state: State, loss: Tensor, args) -> float:
    """One step of the optimiser and of the average; gives the gradient's norm. A step without a finite gradient is
    skipped."""
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.vae.parameters(), args.clip)
    if torch.isfinite(norm):
        state.optimizer.step()
        decay = min(args.ema, (1 + state.step) / (20 + state.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(state.average.parameters()), list(state.vae.parameters()), 1 - decay)
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    return float(norm)


def report(state: State, drawings: Drawings, args, device: torch.device, last: bool = False) -> dict:
    """Saves the checkpoint, the averaged autoencoder and a sheet; gives what the log is to say about them."""
    save(state, args.output / "checkpoint.pt")
    mean, deviation = latent_statistics(state.average, drawings.pictures[: STATISTICS if last else 256], device)
    save_average(state.average, scaling_factor(mean, deviation), args.output)
    held = drawings.held(None if last else args.look)
    trips = round_trip(state.average, held, device)
    sheet(held[:32], trips[:32]).save(args.output / f"round-trip-{state.step:06d}.png")
    ratios = psnr(held, trips)
    return {
        "psnr": round(float(ratios.mean()), 3),
        "worst": round(float(ratios.min()), 3),
        "held": len(held),
        "latents": {"mean": [round(v, 3) for v in mean.tolist()], "std": [round(v, 3) for v in deviation.tolist()]},
    }


def train(state: State, drawings: Drawings, args, device: torch.device) -> None:
    """Steps until the time is up."""
    sums, steps = {}, 0
    clock = kept = said = time.perf_counter()
    pictures = state.pictures
    area = math.prod(drawings.pictures.shape[1:3])
    # The fused attention's backward pass is slow on CPUs.
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()
    with (args.output / "log.jsonl").open("a", encoding="utf-8") as log, attention:

        def write(**entry):
            line = json.dumps({"step": state.step, "minutes": round(state.seconds / 60, 2), **entry})
            print(line, file=log, flush=True)
            print(line, flush=True)

        while state.seconds < 60 * args.minutes:
            if whole(args, state.step, state.seconds):
                pixels = drawings.draw(max(1, args.batch // 4), None, state.generator)
            else:
                pixels = drawings.draw(args.batch, args.crop, state.generator)
            noise = torch.randn(len(pixels), 4, *(side // 8 for side in pixels.shape[2:]), generator=state.generator)
            rate = learning_rate(args, state.step, state.seconds)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            loss, parts = losses(state.vae, pixels.to(device), noise.to(device), args)
            norm = optimise(state, loss, args)
            state.pictures += len(pixels) * math.prod(pixels.shape[2:]) / area
            sums = {name: sums.get(name, 0.0) + float(part) for name, part in {"loss": loss.detach(), **parts}.items()}
            steps += 1
            now = time.perf_counter()
            state.seconds += now - clock
            if steps == args.log_every:
                figures = {name: round(total / steps, 5) for name, total in sums.items()}
                figures["per_second"] = round((state.pictures - pictures) / (now - said), 1)
                write(pictures=round(state.pictures), **figures, norm=round(norm, 3), rate=rate)
                sums, steps, said, pictures = {}, 0, now, state.pictures
            if now - kept > 60 * args.keep_minutes:
                write(**report(state, drawings, args, device))
                # What a report takes counts as training time, so that --minutes are the clock's.
                state.seconds += time.perf_counter() - now
                kept = said = time.perf_counter()
                pictures, sums, steps = state.pictures, {}, 0
            clock = time.perf_counter()
        write(**report(state, drawings, args, device, last=True))


def widths(text: str) -> tuple[int, ...]:
    """Four widths, "16,32,64,96"."""
    values = tuple(int(part) for part in text.split(","))
    if len(values) != 4 or any(value < 1 or value % GROUPS for value in values):
        raise argparse.ArgumentTypeError(f"four multiples of {GROUPS} are needed, not {text!r}")
    return values


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of data.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=35, help="of training in all, earlier ones included")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--from", dest="start", type=Path, metavar="FOLDER", help="begin with these weights")
    parser.add_argument("--widths", type=widths, default=WIDTHS, help="channels at 1, 1/2, 1/4, 1/8 of the side")
    parser.add_argument("--batch", type=int, default=16, help="crops; of whole pictures a quarter of it")
    parser.add_argument("--crop", type=int, default=64, help="side of the crops")
    parser.add_argument("--whole-every", type=int, default=6, help="steps, one of them with whole pictures")
    parser.add_argument("--whole-share", type=float, default=0.3, help="of the time, the last, whole pictures alone")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=150, help="steps")
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--beta2", type=float, default=0.99)
    parser.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient")
    parser.add_argument("--ema", type=float, default=0.999)
    weights = (("l1", 1.0), ("l2", 2.0), ("edges", 0.5), ("kl", 1e-4))
    for name, value in weights:
        parser.add_argument(f"--{name}", type=float, default=value, help="weight of this part of the loss")
    parser.add_argument("--held", type=int, default=512, help="last pictures of the folder, kept from training")
    parser.add_argument("--look", type=int, default=64, help="of those, how many are measured before the end")
    parser.add_argument("--keep-minutes", type=float, default=3, help="between checkpoints")
    parser.add_argument("--log-every", type=int, default=50, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    if args.crop % 8 or args.crop < 16:
        parser.error("--crop must be a multiple of 8 and at least 16")
    return args


def main() -> None:
    """Loads, trains, saves."""
    args = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = args.output / "checkpoint.pt"
    if checkpoint.exists() and not args.resume:
        raise SystemExit(f"{checkpoint} exists: --resume goes on from it, or name another folder")
    args.output.mkdir(parents=True, exist_ok=True)
    drawings = Drawings(args.data / "images.npy", args.held)
    state = new_state(args, device)
    if args.resume:
        restore(state, checkpoint)
    settings = json.dumps(vars(args) | {"parameters": state.vae.num_parameters()}, indent=2, default=str)
    (args.output / "run.json").write_text(settings + "\n", encoding="utf-8")
    train(state, drawings, args, device)


if __name__ == "__main__":
    main()
