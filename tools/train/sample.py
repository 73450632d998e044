"""Draws prompts with a training run's EMA weights, by diffusers alone, into one labelled sheet.

    python sample.py RUN -o sheet.png [--prompts FILE] [--seeds 2] [--cfg 5] [--steps 20]

For looking while training, and to see a difference from Ratel's own pictures.
"""

import argparse
import json
from pathlib import Path

import numpy
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw
from transformers import CLIPTextModel, CLIPTokenizer

from cub_model import LENGTH, SCHEDULE, autocast, load_vae

PROMPTS = (
    "a red dragon over a city at night",
    "a honey badger in the desert by day",
    "a green dragon flying over a hill",
    "a person in blue on a hill at sunset",
    "a yellow star above a white house in the snow",
    "a purple fish in the sea at dawn",
    "a red boat at sea by day",
    "a black cat beside a pink flower in a forest",
    "a tall orange building in the city at night",
    "a honey badger under a red star",
    "a big blue balloon over the sea at sunset",
    "moon in space",
)


def scheduler() -> DPMSolverMultistepScheduler:
    """Cub's sampler: second order, from the very last timestep."""
    return DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing", steps_offset=1)


@torch.inference_mode()
def draw(networks, prompts, seeds, *, steps=20, cfg=5.0, width=128, height=128) -> list[list[numpy.ndarray]]:
    """Pictures (H, W, 3) uint8 of each prompt (outer) and seed (inner). networks: what `load_run` gives.

    In image space, which is where there is no autoencoder, the UNet's pictures are enlarged to this size.
    """
    tokenizer, text_encoder, unet, vae = networks
    if vae is None:
        columns = [draw_pixels(networks[:3], prompts, seed, steps, cfg) for seed in seeds]
        scale = height // unet.config.sample_size
        return [[picture.repeat(scale, 0).repeat(scale, 1) for picture in row] for row in zip(*columns)]
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    shape = (vae.config.latent_channels, height // 8, width // 8)
    columns = []
    for seed in seeds:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).expand(len(prompts), *shape)
        with autocast(unet.device):
            out = pipe(
                list(prompts),
                latents=noise.to(unet.device),
                num_inference_steps=steps,
                guidance_scale=cfg,
                width=width,
                height=height,
                output_type="np",
            )
        columns.append((out.images * 255).round().astype(numpy.uint8))
    return [list(row) for row in zip(*columns)]


def draw_pixels(networks, prompts, seed: int, steps: int, cfg: float) -> list[numpy.ndarray]:
    """Pictures (H, W, 3) uint8 by a noise predictor of image space. networks: tokenizer, text encoder, unet."""
    tokenizer, text_encoder, unet = networks
    texts = ["", *prompts]
    ids = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")["input_ids"]
    shape = (1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    steps_of = scheduler()
    steps_of.set_timesteps(steps)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).repeat(len(prompts), 1, 1, 1).to(unet.device)
    with autocast(unet.device):
        context = text_encoder(ids.to(unet.device))[0]
        for timestep in steps_of.timesteps:
            plain = unet(x, timestep, context[:1].expand(len(x), -1, -1)).sample.float()
            asked = unet(x, timestep, context[1:]).sample.float()
            x = steps_of.step(plain + cfg * (asked - plain), timestep, x).prev_sample
    pictures = (127.5 * (x.float() + 1)).clamp(0, 255).round().byte()
    return list(pictures.permute(0, 2, 3, 1).cpu().numpy())


def sheet(prompts, rows, across: int = 1) -> Image.Image:
    """One picture of all: under its prompt, each prompt's pictures; `across` prompts beside each other."""
    height, width, _ = rows[0][0].shape
    wide, high = width * len(rows[0]) + 4, height + 14
    page = Image.new("RGB", (wide * across, high * -(-len(rows) // across)), "white")
    pen = ImageDraw.Draw(page)
    for number, (prompt, row) in enumerate(zip(prompts, rows)):
        x, y = wide * (number % across), high * (number // across)
        pen.text((x + 2, y + 1), prompt[: wide // 6], fill="black")
        page.paste(Image.fromarray(numpy.concatenate(row, axis=1)), (x, y + 14))
    return page


def load_run(run: Path, vae_folder: Path | None = None, device: str = "cpu"):
    """tokenizer, text encoder, unet and vae of a run; the autoencoder is the one it was trained with unless given, and
    None in image space."""
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    vae_folder = vae_folder or settings["vae"]
    return (
        CLIPTokenizer.from_pretrained(run / "tokenizer"),
        CLIPTextModel.from_pretrained(run / "text_encoder").to(device),
        UNet2DConditionModel.from_pretrained(run / "unet").to(device),
        load_vae(Path(vae_folder)).to(device) if vae_folder else None,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="another autoencoder than the run's")
    parser.add_argument("--prompts", type=Path, help="a text file, one prompt a line")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--across", type=int, default=3, help="prompts beside each other")
    args = parser.parse_args()
    prompts = args.prompts.read_text(encoding="utf-8").splitlines() if args.prompts else PROMPTS
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = load_run(args.run, args.vae, device)
    size = {"width": args.width, "height": args.height}
    rows = draw(networks, prompts, range(args.seeds), steps=args.steps, cfg=args.cfg, **size)
    sheet(prompts, rows, args.across).save(args.output)


if __name__ == "__main__":
    main()
