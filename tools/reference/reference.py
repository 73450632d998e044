"""Loads a checkpoint into diffusers' StableDiffusionPipeline on the CPU in f32, and runs it with exactly known noise.

Noise: image i of a batch has its own torch CPU generator, seeded with seed + i. It draws first the initial latent,
shape (1, C, H/f, W/f) in f32; then, for stochastic samplers, one tensor of that shape each time the scheduler asks, in
call order. Nothing else draws from it.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
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
    """What a run gave, NCHW f32. noise: before the scheduler's scaling. step_latents: after each call of the model.
    embeddings: negative rows, then prompts (prompts alone without guidance). pictures: in 0..1."""

    noise: torch.Tensor
    latents: torch.Tensor
    step_latents: list[torch.Tensor]
    timesteps: list[float]
    embeddings: torch.Tensor
    ids: torch.Tensor
    pictures: torch.Tensor
    seconds: dict[str, float]


def load_pipeline(checkpoint: Path, config: Path | None = None) -> StableDiffusionPipeline:
    """Loads a folder, or a single file with the folder that has its config files and tokenizer."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    options = {"dtype": torch.float32, "safety_checker": None}
    if checkpoint.is_dir():
        pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, local_files_only=True, **options)
    elif config is None:
        raise SystemExit(f"{checkpoint} is a single file: name a folder with its config files by --config")
    else:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(checkpoint), config=str(config), local_files_only=True, **options
        )
    # The file, not the scheduler object: an object fills in its class's defaults, which other classes don't share.
    pipeline.scheduler_file = json.loads(((config or checkpoint) / "scheduler/scheduler_config.json").read_text())
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
def generate(pipeline: StableDiffusionPipeline, request: Request) -> Result:
    """Runs a text-to-image request."""
    scheduler = build_scheduler(
        request.sampler, request.schedule, pipeline.scheduler_file, **request.scheduler_overrides
    )
    pipeline.scheduler = scheduler
    prompts = request.prompts * request.batch if len(request.prompts) == 1 else request.prompts
    source = generators(request.seed, len(prompts))
    if hasattr(scheduler, "generators"):
        scheduler.generators = source
    factor = pipeline.vae_scale_factor
    shape = (len(prompts), pipeline.unet.config.in_channels, request.height // factor, request.width // factor)
    noise = randn_tensor(shape, generator=source, dtype=torch.float32)

    start = time.perf_counter()
    guided = request.cfg > 1
    positive, negative = pipeline.encode_prompt(
        prompts, "cpu", 1, guided, [request.negative] * len(prompts), clip_skip=request.clip_skip
    )
    encoded = time.perf_counter()
    step_latents, timesteps = [], []

    def keep(_, step, timestep, tensors):
        step_latents.append(tensors["latents"].clone())
        timesteps.append(float(timestep))
        return tensors

    latents = pipeline(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        guidance_scale=request.cfg,
        eta=request.eta,
        latents=noise,
        generator=source,
        output_type="latent",
        callback_on_step_end=keep,
    ).images
    denoised = time.perf_counter()
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    done = time.perf_counter()
    return Result(
        noise=noise,
        latents=latents,
        step_latents=step_latents,
        timesteps=timesteps,
        embeddings=torch.cat([negative, positive]) if guided else positive,
        ids=token_ids(pipeline, [request.negative] * len(prompts) + prompts if guided else prompts),
        pictures=(decoded / 2 + 0.5).clamp(0, 1),
        seconds={"text": encoded - start, "denoise": denoised - encoded, "decode": done - denoised},
    )


@torch.no_grad()
def generate_from_image(pipeline: StableDiffusionPipeline, request: Request, image: Image.Image, strength: float):
    """Runs an image-to-image request on an image of its size: the final latents (N, C, H/f, W/f), and the timesteps.

    Image i's generator, seeded with seed + i, draws first the noise of the latents' own distribution, then the noise
    that is added to them, then what a stochastic sampler asks for.
    """
    scheduler = build_scheduler(
        request.sampler, request.schedule, pipeline.scheduler_file, **request.scheduler_overrides
    )
    prompts = request.prompts * request.batch if len(request.prompts) == 1 else request.prompts
    source = generators(request.seed, len(prompts))
    if hasattr(scheduler, "generators"):
        scheduler.generators = source
    parts = {**pipeline.components, "scheduler": scheduler}
    from_image = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    from_image.set_progress_bar_config(disable=True)
    positive, negative = from_image.encode_prompt(
        prompts, "cpu", 1, request.cfg > 1, [request.negative] * len(prompts), clip_skip=request.clip_skip
    )
    timesteps = []

    def keep(_, step, timestep, tensors):
        timesteps.append(float(timestep))
        return tensors

    latents = from_image(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        image=image,
        strength=strength,
        num_inference_steps=request.steps,
        guidance_scale=request.cfg,
        eta=request.eta,
        generator=source,
        output_type="latent",
        callback_on_step_end=keep,
    ).images
    return latents, timesteps
