"""Loads a checkpoint into diffusers' StableDiffusionPipeline on the CPU in f32, and runs it with exactly known noise.

Noise: image i of a batch has its own torch CPU generator, seeded with seed + i. It draws first the initial latent,
shape (1, C, H/f, W/f) in f32; then, for stochastic samplers, one tensor of that shape each time the scheduler asks, in
call order. Nothing else draws from it. From an image, it draws before all that the noise of the latents' own
distribution, unless the model works on pictures themselves.

A folder without a VAE is such a model: its UNet takes and gives three channels. It runs through the same pipelines of
diffusers, with a VAE that does nothing.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from samplers import build_scheduler


@dataclass
class Request:
    """What to generate. A prompt is repeated to fill the batch; several prompts are the batch."""

    prompts: list[str]
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    cfg: float = 7.5
    sampler: str = "ddim"
    schedule: str = "normal"
    seed: int = 0
    batch: int = 1
    eta: float = 0.0
    clip_skip: int | None = None
    scheduler_overrides: dict = field(default_factory=dict)


@dataclass
class Result:
    """What a run gave, NCHW f32. noise: before the scheduler's scaling, None from an image. step_latents: after each call of the model.
    embeddings: negative rows, then prompts (prompts alone without guidance). pictures: in 0..1."""

    noise: torch.Tensor | None
    latents: torch.Tensor
    step_latents: list[torch.Tensor]
    timesteps: list[float]
    embeddings: torch.Tensor
    ids: torch.Tensor
    pictures: torch.Tensor
    seconds: dict[str, float]


class NoVae(torch.nn.Module):
    """Stands for the VAE where there is none: pictures are their own latents, and nothing is drawn to make them."""

    config = SimpleNamespace(block_out_channels=(3,), in_channels=3, latent_channels=3, scaling_factor=1.0)
    dtype, device = torch.float32, torch.device("cpu")

    def encode(self, picture: torch.Tensor):
        """diffusers takes `latents` where there is no distribution to draw them from."""
        return SimpleNamespace(latents=picture)

    def decode(self, latents: torch.Tensor, return_dict: bool = True, generator=None):
        """As AutoencoderKL answers."""
        return SimpleNamespace(sample=latents) if return_dict else (latents,)


def load_pixel_pipeline(folder: Path, shared: Path | None) -> StableDiffusionPipeline:
    """Loads a folder without a VAE; what else it lacks is in `shared`."""

    def load(part: str, kind: type):
        place = folder if (folder / part).is_dir() or shared is None else shared
        return kind.from_pretrained(place / part, local_files_only=True)

    parts = {
        "text_encoder": load("text_encoder", CLIPTextModel),
        "tokenizer": load("tokenizer", CLIPTokenizer),
        "unet": load("unet", UNet2DConditionModel),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),  # every run builds its own
    }
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(vae=NoVae(), **parts, **without)


def has_vae(pipeline: StableDiffusionPipeline) -> bool:
    """Whether it draws in latents."""
    return not isinstance(pipeline.vae, NoVae)


def load_pipeline(checkpoint: Path, config: Path | None = None) -> StableDiffusionPipeline:
    """Loads a folder, or a single file with the folder that has its config files and tokenizer.

    A folder without a VAE may have its text encoder and tokenizer in the other folder, too.
    """
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    options = {"dtype": torch.float32, "safety_checker": None}
    if checkpoint.is_dir() and not (checkpoint / "vae").is_dir():
        pipeline = load_pixel_pipeline(checkpoint, config)
    elif checkpoint.is_dir():
        pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, local_files_only=True, **options)
    elif config is None:
        raise SystemExit(f"{checkpoint} is a single file: name a folder with its config files by --config")
    else:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(checkpoint), config=str(config), local_files_only=True, **options
        )
    described = checkpoint if checkpoint.is_dir() else config
    # The file, not the scheduler object: an object fills in its class's defaults, which other classes don't share.
    pipeline.scheduler_file = json.loads((described / "scheduler/scheduler_config.json").read_text())
    pipeline.set_progress_bar_config(disable=True)
    # diffusers' clip_skip looks for text_encoder.text_model, which transformers 5 no longer has. Set past nn.Module,
    # which would take it for a submodule.
    object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        model.eval().to(torch.float32)
    return pipeline


def generators(seed: int, batch: int) -> list[torch.Generator]:
    """One CPU generator per image: seed, seed + 1, ..."""
    return [torch.Generator("cpu").manual_seed(seed + i) for i in range(batch)]


def token_ids(pipeline: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    """Token ids (N, 77), truncated and padded as the pipeline does it."""
    tokenizer = pipeline.tokenizer
    length = tokenizer.model_max_length
    return tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def generate(
    pipeline: StableDiffusionPipeline, request: Request, image: Image.Image | None = None, strength: float = 0.8
) -> Result:
    """Runs a text-to-image request, or, from an image of its size, an image-to-image one."""
    scheduler = build_scheduler(
        request.sampler, request.schedule, pipeline.scheduler_file, **request.scheduler_overrides
    )
    prompts = request.prompts * request.batch if len(request.prompts) == 1 else request.prompts
    source = generators(request.seed, len(prompts))
    if hasattr(scheduler, "generators"):
        scheduler.generators = source
    if image is None:
        factor = pipeline.vae_scale_factor
        shape = (len(prompts), pipeline.unet.config.in_channels, request.height // factor, request.width // factor)
        noise = randn_tensor(shape, generator=source, dtype=torch.float32)
        pipeline.scheduler, run = scheduler, pipeline
        start = {"latents": noise, "width": request.width, "height": request.height}
    else:
        noise = None
        run = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
        run.scheduler = scheduler  # put in afterwards, since the constructor changes `clip_sample`
        run.set_progress_bar_config(disable=True)
        start = {"image": image, "strength": strength}

    begun = time.perf_counter()
    guided = request.cfg > 1
    positive, negative = run.encode_prompt(
        prompts, "cpu", 1, guided, [request.negative] * len(prompts), clip_skip=request.clip_skip
    )
    encoded = time.perf_counter()
    step_latents, timesteps = [], []

    def keep(_, step, timestep, tensors):
        step_latents.append(tensors["latents"].clone())
        timesteps.append(float(timestep))
        return tensors

    latents = run(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        num_inference_steps=request.steps,
        guidance_scale=request.cfg,
        eta=request.eta,
        generator=source,
        output_type="latent",
        callback_on_step_end=keep,
        **start,
    ).images
    denoised = time.perf_counter()
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    done = time.perf_counter()
    return Result(
        noise=noise,
        latents=latents,
        step_latents=step_latents,
        timesteps=timesteps,
        embeddings=torch.cat([negative, positive]) if guided else positive,
        ids=token_ids(pipeline, [request.negative] * len(prompts) + prompts if guided else prompts),
        pictures=(decoded / 2 + 0.5).clamp(0, 1),
        seconds={"text": encoded - begun, "denoise": denoised - encoded, "decode": done - denoised},
    )
