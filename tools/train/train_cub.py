"""Trains cub's text encoder and UNet together on cached latents, or a UNet of image space beside a trained cub.

    python train_cub.py --data DIR [DIR ...] --vae RUN --tokenizer DIR -o RUN [--minutes 90] [--resume]
    python train_cub.py --data DIR [DIR ...] --text-encoder RUN -o RUN [--minutes 90] [--resume]

The second command has no autoencoder: the UNet learns 32x32 pictures themselves, from the prompts as the text encoder
of RUN encodes them, which stays as it is.

The first folder of data holds most pictures and all validation pictures; further ones (of other sizes) share `--others`
of the batches. The rate is constant after a warm-up and falls to zero in the last `--decay-minutes`; before it falls,
the state is kept as constant.pt, from which `--resume constant.pt --minutes MORE` goes on as if it had never fallen.
SIGTERM ends a run as its time does: with a checkpoint.

The run's folder holds run.json, log.jsonl, checkpoint.pt, sheets of samples, and the averaged (EMA) weights as
diffusers saves them: tokenizer/, text_encoder/, unet/.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

import latents
import sample
from cub_model import PlainAttention, autocast, load_vae, signal_shares
from cub_model import build_pixel_unet, build_text_encoder, build_unet
from muon import Muon

MAX_SKIPPED = 20


@dataclass
class State:
    """Everything that a checkpoint holds, and what it is trained with."""

    text_encoder: nn.Module
    unet: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: list[Tensor]
    generator: torch.Generator
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    drawn: dict[str, int] = field(default_factory=dict)

    def parameters(self) -> list[Tensor]:
        """What is trained, in a fixed order."""
        both = [*self.text_encoder.parameters(), *self.unet.parameters()]
        return [tensor for tensor in both if tensor.requires_grad]


def new_state(vocabulary: int, args, device: torch.device) -> State:
    """Fresh networks. Matrices and kernels have weight decay; biases, norms and embeddings don't."""
    torch.manual_seed(args.seed)
    if args.text_encoder:
        text_encoder = CLIPTextModel.from_pretrained(args.text_encoder / "text_encoder").to(device)
        text_encoder.requires_grad_(False)
    else:
        text_encoder = build_text_encoder(vocabulary).to(device)
    unet = (build_unet() if args.vae else build_pixel_unet()).to(device, memory_format=torch.channels_last)
    unet.set_attn_processor(PlainAttention())
    text_encoder.train(), unet.train()
    named = [*text_encoder.named_parameters(), *unet.named_parameters()]
    named = [(name, tensor) for name, tensor in named if tensor.requires_grad]
    matrices = [tensor for name, tensor in named if tensor.ndim > 1 and "embedding" not in name]
    others = [tensor for name, tensor in named if tensor.ndim <= 1 or "embedding" in name]
    groups = [{"params": others, "weight_decay": 0.0}]
    optimizers = []
    if args.optimizer == "muon":
        optimizers.append(Muon(matrices, args.lr, weight_decay=args.weight_decay))
    else:
        groups.append({"params": matrices, "weight_decay": args.weight_decay})
    optimizers.append(torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, args.beta2), fused=True))
    generator = torch.Generator().manual_seed(args.seed)
    average = [tensor.detach().clone() for _, tensor in named]
    return State(text_encoder, unet, optimizers, average, generator)


def save(state: State, path: Path) -> None:
    """Writes a checkpoint beside its place, then moves it there."""
    counters = {key: getattr(state, key) for key in ("step", "samples", "seconds", "drawn")}
    content = {
        "text_encoder": state.text_encoder.state_dict(),
        "unet": state.unet.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "average": state.average,
        "generator": state.generator.get_state(),
        **counters,
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def restore(state: State, path: Path) -> None:
    """Reads what `save` wrote."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state.text_encoder.load_state_dict(content["text_encoder"])
    state.unet.load_state_dict(content["unet"])
    for optimizer, read in zip(state.optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(read)
    for kept, read in zip(state.average, content["average"], strict=True):
        kept.copy_(read)
    state.generator.set_state(content["generator"])
    for key in ("step", "samples", "seconds", "drawn"):
        setattr(state, key, content[key])


@contextlib.contextmanager
def averaged(state: State):
    """Lends the networks their averaged weights."""
    parameters = state.parameters()
    own = [tensor.detach().clone() for tensor in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, state.average)
    state.text_encoder.eval(), state.unet.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, own)
        state.text_encoder.train(), state.unet.train()


def save_average(state: State, run: Path) -> None:
    """Writes the averaged networks as diffusers folders, each beside its place, then moved there."""
    with averaged(state):
        for name in ("text_encoder", "unet"):
            partial, folder = run / f"{name}.partial", run / name
            shutil.rmtree(partial, ignore_errors=True)
            getattr(state, name).save_pretrained(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)


class Batches:
    """Draws batches: rows in a new order each epoch, one of each picture's captions, timesteps spread evenly."""

    def __init__(self, folders: list[latents.Pictures], args, empty: numpy.ndarray):
        """empty: the token ids of the empty prompt."""
        self.folders, self.args, self.empty = folders, args, torch.from_numpy(empty.astype(numpy.int64))
        self.kept = len(folders[0].latents) - args.validation
        self.orders: dict[str, tuple[int, numpy.ndarray]] = {}
        if self.kept < args.batch:
            raise ValueError(f"{folders[0].name}: without those for validation, {self.kept} pictures are no batch")

    def size(self, folder: latents.Pictures) -> int:
        """Pictures of a batch: fewer where they are larger than the first folder's."""
        first = self.folders[0].latents.shape
        area = folder.latents.shape[2] * folder.latents.shape[3]
        return max(8, self.args.batch * first[2] * first[3] // area // 8 * 8)

    def draw(self, state: State) -> tuple[bool, Tensor, Tensor, Tensor, Tensor]:
        """(whether it is of the first folder, latents, token ids, timesteps, noise)."""
        generator = state.generator
        index = 0
        if len(self.folders) > 1 and torch.rand((), generator=generator) < self.args.others:
            index = 1 + int(torch.randint(len(self.folders) - 1, (), generator=generator))
        folder = self.folders[index]
        count = self.size(folder) if index else self.args.batch
        rows = self._rows(state, folder, self.kept if index == 0 else len(folder.latents), count)
        columns = torch.randint(folder.tokens.shape[1], (count,), generator=generator).numpy()
        clean, tokens = folder.batch(rows, columns)
        tokens[torch.rand(count, generator=generator) < self.args.drop] = self.empty
        # One value in each of `count` equal ranges: the loss of a batch depends less on luck.
        spread = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        noise = torch.randn(clean.shape, generator=generator)
        return index == 0, clean, tokens, timesteps(spread, self.args.levels), noise

    def validation(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, token ids, timesteps and noise, the same at each call."""
        generator = torch.Generator().manual_seed(1)
        count = self.args.validation
        rows = numpy.arange(self.kept, self.kept + count)
        clean, tokens = self.folders[0].batch(rows, numpy.zeros(count, numpy.int64))
        spread = torch.arange(count) * 1000 // count
        return clean, tokens, spread, torch.randn(clean.shape, generator=generator)

    def _rows(self, state: State, folder: latents.Pictures, available: int, count: int) -> numpy.ndarray:
        start = state.drawn.get(folder.name, 0)
        state.drawn[folder.name] = start + count
        places = (divmod(at, available) for at in range(start, start + count))
        return numpy.sort([self._order(folder.name, epoch, available)[place] for epoch, place in places])

    def _order(self, name: str, epoch: int, available: int) -> numpy.ndarray:
        if self.orders.get(name, (None,))[0] != epoch:
            seed = (self.args.seed, epoch, *name.encode())
            self.orders[name] = epoch, numpy.random.default_rng(seed).permutation(available)
        return self.orders[name][1]


def noised(clean: Tensor, noise: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and its v = sqrt(abar) noise - sqrt(1 - abar) clean, for `shares` abar of each picture."""
    signal, rest = (part.sqrt().view(-1, 1, 1, 1) for part in (shares, 1 - shares))
    return signal * clean + rest * noise, signal * noise - rest * clean


def timesteps(spread: Tensor, levels: str) -> Tensor:
    """Timesteps of numbers spread over 0 to 1: `uniform`, or `normal`: a tenth uniform and the others with log SNR of
    mean 0 and deviation 2, as a uniform half of the 1000 steps has so much noise (SNR < 0.2) that it teaches little."""
    uniform = (spread * 1000).long().clamp(max=999)
    if levels == "uniform":
        return uniform
    shares = signal_shares()
    wanted = 2 * torch.special.ndtri((spread.double() - 0.1) / 0.9)
    normal = torch.searchsorted((1 / shares - 1).log(), -wanted).clamp(max=999)
    return torch.where(spread < 0.1, (spread * 10_000).long().clamp(max=999), normal)


def loss_weights(shares: Tensor, levels: str, gamma: float = 5.0) -> Tensor:
    """Weights of v's squared error: for `uniform` timesteps min(SNR, gamma) / (SNR + 1) (Hang et al. 2023), else 1."""
    if levels == "normal":
        return torch.ones_like(shares)
    ratio = shares / (1 - shares)
    return ratio.clamp(max=gamma) / (ratio + 1)


def learning_rate(args, step: int, seconds: float) -> float:
    """The rate after `step` steps and `seconds` of training."""
    rate = args.lr * min(1.0, (step + 1) / args.warmup)
    left = 60 * args.minutes - seconds
    if args.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, seconds / (60 * args.minutes))))
    if args.schedule == "wsd" and args.decay_minutes > 0:
        return rate * min(1.0, max(0.0, left / (60 * args.decay_minutes)))
    return rate


@torch.no_grad()
def validate(state: State, batches: Batches, shares: Tensor) -> list[float]:
    """The averaged networks' mean squared error of v in four equal ranges of timesteps, from little noise to much."""
    device = shares.device
    clean, tokens, steps, noise = (part.to(device) for part in batches.validation())
    x, v = noised(clean, noise, shares[steps])
    errors = []
    with averaged(state), autocast(device):
        for rows in torch.arange(len(x)).split(64):
            context = state.text_encoder(tokens[rows])[0]
            out = state.unet(x[rows], steps[rows], context, return_dict=False)[0]
            errors.append((out.float() - v[rows]).square().mean((1, 2, 3)))
    return [round(float(part.mean()), 5) for part in torch.cat(errors).chunk(4)]


def train(state: State, batches: Batches, networks: dict | None, args, device: torch.device) -> None:
    """Steps until the time is up. networks: what sheets need beside the state: tokenizer and vae. None: no sheets."""
    shares = signal_shares().float().to(device)
    unet = torch.compile(state.unet) if args.compile else state.unet
    parameters = state.parameters()
    log = (args.output / "log.jsonl").open("a", encoding="utf-8")
    total, skipped, decaying, first = 0.0, 0, False, True
    clock = saved = reported = time.perf_counter()
    reported_step, reported_samples = state.step, state.samples

    def write(**entry):
        print(json.dumps(entry), file=log, flush=True)
        print(json.dumps(entry), flush=True)

    def keep():
        save(state, args.output / "checkpoint.pt")
        save_average(state, args.output)
        ranges = validate(state, batches, shares)
        write(step=state.step, validation=round(sum(ranges) / 4, 5), ranges=ranges)
        if networks is not None:
            with averaged(state):
                parts = networks["tokenizer"], state.text_encoder, state.unet, networks["vae"]
                rows = sample.draw(parts, sample.PROMPTS, (0, 1))
            sample.sheet(sample.PROMPTS, rows, 3).save(args.output / f"sheet-{state.step:06d}.png")

    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    while state.seconds < 60 * args.minutes and not stopped:
        usual, *batch = batches.draw(state)
        clean, tokens, steps, noise = (part.to(device) for part in batch)
        share = shares[steps]
        x, v = noised(clean, noise, share)
        rate = learning_rate(args, state.step, state.seconds)
        if args.schedule == "wsd" and not decaying and rate < args.lr and state.step > args.warmup:
            decaying = True
            save(state, args.output / "constant.pt")
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        with autocast(device):
            context = state.text_encoder(tokens)[0]
            # Other sizes run without compiling: each would cost a minute or two.
            out = (unet if usual else state.unet)(x, steps, context, return_dict=False)[0]
        errors = (out.float() - v).square().mean((1, 2, 3))
        (errors * loss_weights(share, args.levels)).mean().backward()
        norm = nn.utils.clip_grad_norm_(parameters, args.clip)
        if torch.isfinite(norm):
            for optimizer in state.optimizers:
                optimizer.step()
            skipped = 0
        else:
            skipped += 1
            if skipped > MAX_SKIPPED:
                raise FloatingPointError(f"step {state.step}: the gradient was not finite {skipped} times in a row")
        for parameter in parameters:
            parameter.grad = None
        decay = min(args.ema, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            torch._foreach_lerp_(state.average, parameters, 1 - decay)
        state.step += 1
        state.samples += len(clean)
        total += float(errors.detach().mean())
        now = time.perf_counter()
        if first and usual and args.compile:
            clock = saved = reported = now  # compiling is not training
        first = first and not usual
        state.seconds += now - clock
        clock = now
        if state.step % args.log_every == 0:
            speed = (state.samples - reported_samples) / max(now - reported, 1e-9)
            mean = total / (state.step - reported_step)
            counts = {"step": state.step, "samples": state.samples, "minutes": round(state.seconds / 60, 2)}
            figures = {"loss": round(mean, 5), "norm": round(float(norm), 4), "per_second": round(speed, 1)}
            write(**counts, **figures, rate=rate)
            total, reported, reported_step, reported_samples = 0.0, now, state.step, state.samples
        if now - saved > 60 * args.keep_minutes:
            keep()
            saved = time.perf_counter()
    keep()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of data.py; the first one leads")
    parser.add_argument("--vae", type=Path, help="a run of train_vae.py")
    parser.add_argument("--tokenizer", type=Path, help="a folder of tokenizer.py")
    parser.add_argument("--text-encoder", type=Path, metavar="RUN", help="of this script, for a UNet of image space")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90, help="of training in all, earlier ones included")
    parser.add_argument("--resume", nargs="?", const="checkpoint.pt", metavar="FILE", help="go on from the run's FILE")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--others", type=float, default=0.1, help="share of batches from the folders after the first")
    parser.add_argument("--drop", type=float, default=0.1, help="share of captions replaced by the empty one")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon", help="of matrices and kernels")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--schedule", choices=("wsd", "cosine", "constant"), default="wsd")
    parser.add_argument("--decay-minutes", type=float, default=20)
    parser.add_argument("--levels", choices=("normal", "uniform"), default="normal", help="how timesteps are drawn")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--beta2", type=float, default=0.99)
    parser.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--validation", type=int, default=512, help="pictures of the first folder kept for it")
    parser.add_argument("--keep-minutes", type=float, default=5, help="between checkpoints")
    parser.add_argument("--log-every", type=int, default=20, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    given = [args.vae is not None, args.tokenizer is not None, args.text_encoder is not None]
    if given not in ([True, True, False], [False, False, True]):
        parser.error("needs either --vae and --tokenizer, or --text-encoder")
    return args


def main() -> None:
    """Loads, trains, saves."""
    args = arguments()
    args.tokenizer = args.tokenizer or args.text_encoder / "tokenizer"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = args.output / "checkpoint.pt"
    if checkpoint.exists() and not args.resume:
        raise SystemExit(f"{checkpoint} exists: --resume goes on from it, or name another folder")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.tokenizer.resolve() != (args.output / "tokenizer").resolve():
        shutil.copytree(args.tokenizer, args.output / "tokenizer", dirs_exist_ok=True)
    settings = {key: [str(p) for p in value] if key == "data" else value for key, value in vars(args).items()}
    (args.output / "run.json").write_text(json.dumps(settings, indent=2, default=str) + "\n", encoding="utf-8")

    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer)
    folders = [latents.load(folder, args.vae, tokenizer, device) for folder in args.data]
    batches = Batches(folders, args, latents.token_ids(tokenizer, [[""]])[0, 0])
    state = new_state(len(tokenizer), args, device)
    if args.resume:
        restore(state, args.output / args.resume)
    vae = load_vae(args.vae).to(device) if args.vae else None
    train(state, batches, {"tokenizer": tokenizer, "vae": vae}, args, device)


if __name__ == "__main__":
    main()
