"""Writes everything under tests/fixtures/ that comes from diffusers and transformers (not the tokenizer's file).

    python make_fixtures.py                      all
    python make_fixtures.py models results       some of: schedulers, models, results, img2img (which is part of results)
    python make_fixtures.py models results --only tiny-pixels

tests/fixtures/README.md describes the files.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import make_checkpoint
import scheduler_fixtures
from architectures import ARCHITECTURES
from reference import Request, generate, generators, has_vae, load_pipeline, token_ids
from run_reference import save_pictures
from samplers import SAMPLERS, supports
from trace_modules import trace_once

FIXTURES = Path(__file__).resolve().parents[2] / "tests/fixtures"
MODELS = ("tiny", "tiny-v", "odd", "tiny-pixels")
SINGLE_FILES = ("tiny", "tiny-v")
PROMPTS = [
    "a photograph of an astronaut riding a horse",
    "",
    "Café à la crème, ÑANDÚ, naïve, Straße",
    "富士山の浮世絵, 수채화, 水墨画",
    "a 🦡 eating 🍯, 👩‍🚀",
    "an old oak in the rain, oil on canvas, 1892, " * 8,
]
NEGATIVE = "blurry, low quality"
SIZE, LARGE_SIZE = (72, 40), (136, 72)
PIXEL_SIZE, LARGE_PIXEL_SIZE = (24, 16), (40, 24)
"""Widths and heights of whole runs: in latents, and in image space, where every pixel is computed."""
UNET_CALLS = (("batch2", 8, 8, [981.0, 981.0]), ("batch3", 5, 3, [1.0, 250.5, 999.0]), ("row", 1, 7, [0.0]))
"""Name, latent height and width, one timestep per image."""
UNET_KEPT = (
    r"^unet\.(input\.|conv_in$|time_|conv_norm_out|conv_out|mid_block)"
    r"|^unet\.(down|up)_blocks\.\d\.(resnets|attentions|downsamplers|upsamplers)\.\d$"
)
TEXT_KEPT = r"layers\.\d$|norm$|ids|embeddings$"
VAE_KEPT = (
    r"^vae\.(input\.|post_quant_conv|quant_conv|(en|de)coder\.(conv_in|conv_norm_out|conv_out|mid_block))"
    r"|^vae\.(en|de)coder\.(down|up)_blocks\.\d\.(resnets|downsamplers|upsamplers)\.\d$"
)


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Writes a safetensors file, readable by all."""
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def write_models(folder: Path, only: list[str]) -> None:
    """The small checkpoints, f16: folders, and single files of the same weights."""
    for name in only:
        shutil.rmtree(folder / name, ignore_errors=True)
        make_checkpoint.write_folder(ARCHITECTURES[name], folder / name, 0, torch.float16, None)
    for name in filter(only.__contains__, SINGLE_FILES):
        state = make_checkpoint.single_file_state(ARCHITECTURES[name], 0, torch.float16, extras=True)
        make_checkpoint.save(state, folder / f"{name}.safetensors")
        make_checkpoint.check_single_file(ARCHITECTURES[name], state, 0, torch.float16)


@torch.no_grad()
def write_text(pipeline, folder: Path) -> None:
    """Token ids and embeddings of PROMPTS."""
    ids = token_ids(pipeline, PROMPTS)
    save(
        {
            "ids": ids.to(torch.int32),
            "embeddings": pipeline.text_encoder(ids)[0],
            "embeddings_clip_skip_1": pipeline.encode_prompt(PROMPTS[:1], "cpu", 1, False, clip_skip=1)[0],
        },
        folder / "text.safetensors",
    )


@torch.no_grad()
def write_unet_calls(pipeline, folder: Path) -> None:
    """UNet calls of several batches, sizes and timesteps: inputs and output only."""
    tensors = {}
    states = pipeline.text_encoder(token_ids(pipeline, PROMPTS))[0]
    channels = pipeline.unet.config.in_channels
    for name, h, w, timesteps in UNET_CALLS:
        batch = len(timesteps)
        sample = torch.cat([torch.randn((1, channels, h, w), generator=g) for g in generators(10, batch)])
        timestep = torch.tensor(timesteps)
        output = pipeline.unet(sample, timestep, encoder_hidden_states=states[:batch]).sample
        call = {"sample": sample, "timestep": timestep, "encoder_hidden_states": states[:batch], "output": output}
        tensors.update({f"{name}/{key}": value for key, value in call.items()})
    save(tensors, folder / "unet_calls.safetensors")


def common_and_larger(pipeline) -> tuple[dict, dict]:
    """What most requests of a model say, and another size."""
    sizes = (SIZE, LARGE_SIZE) if has_vae(pipeline) else (PIXEL_SIZE, LARGE_PIXEL_SIZE)
    (width, height), (larger_width, larger_height) = sizes
    common = {"prompts": PROMPTS[:1], "negative": NEGATIVE, "width": width, "height": height, "steps": 4, "seed": 42}
    return common, {**common, "width": larger_width, "height": larger_height}


def requests(pipeline) -> list[Request]:
    """The whole runs: every sampler, some schedules, and the request's other switches."""
    common, larger = common_and_larger(pipeline)
    found = [Request(**common, sampler=sampler) for sampler in SAMPLERS]
    found += [
        Request(**common, sampler=sampler, schedule=schedule)
        for sampler in ("euler", "dpm++2m", "dpm++2m_sde")
        for schedule in ("karras", "exponential", "beta", "sgm_uniform")
        if supports(sampler, schedule)
    ]
    found += [
        Request(**common, cfg=1.0),
        Request(**common, eta=1.0),
        Request(**common, clip_skip=1),
        Request(**common, batch=3, sampler="euler_a"),
        Request(**{**common, "prompts": PROMPTS}, sampler="dpm++2m"),
        Request(**larger),
        Request(**common, scheduler_overrides={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ]
    return found


def write_runs(pipeline, folder: Path, v_prediction: bool) -> None:
    """Whole runs: final latents of each, and one picture."""
    tensors, cases = {}, []
    for request in requests(pipeline):
        if "rescale_betas_zero_snr" in request.scheduler_overrides and not v_prediction:
            continue  # epsilon has no signal to predict at zero SNR
        result = generate(pipeline, request)
        name = f"{len(cases)}"
        tensors[name] = result.latents
        cases.append({"name": name, **asdict(request), "timesteps": result.timesteps})
        if len(cases) == 1:
            tensors["0/noise"] = result.noise
            tensors["0/step_latents"] = torch.stack(result.step_latents)
            tensors["0/pictures"] = result.pictures
            save_pictures(result, folder)
    save(tensors, folder / "runs.safetensors")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (folder / "runs.json").write_text(f'{{"runs": [\n{lines}\n]}}\n', encoding="utf-8")


def picture(width: int, height: int) -> Image.Image:
    """A picture with edges and slopes: what an encoder has to look at."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / (width - 1)
    green = 255 * y / (height - 1)
    blue = np.where((x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2, 230, 40)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).round().astype(np.uint8))


def image_requests(pipeline) -> list[tuple[Request, float]]:
    """The image-to-image runs with their strengths: every sampler, how many steps are left out, batches, no guidance."""
    common, larger = common_and_larger(pipeline)
    found = [(Request(**common, sampler=sampler), 0.75) for sampler in SAMPLERS]
    found += [
        (Request(**{**common, "steps": 10}, sampler="dpm++2m", schedule="karras"), 0.3),
        (Request(**{**common, "steps": 7}, sampler="euler"), 0.29),
        (Request(**common, sampler="ddim"), 1.0),
        (Request(**common, sampler="euler"), 1.0),
        (Request(**common, batch=3, sampler="euler_a"), 0.5),
        (Request(**common, cfg=1.0), 0.5),
        (Request(**larger), 0.5),
    ]
    return found


@torch.no_grad()
def write_image_runs(pipeline, folder: Path) -> None:
    """Image-to-image runs: final latents of each; and the distribution that the encoder makes of the image."""
    tensors, cases = {}, []
    for request, strength in image_requests(pipeline):
        image = picture(request.width, request.height)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        tensors[f"image/{request.width}x{request.height}"] = pixels
        result = generate(pipeline, request, image, strength)
        name = f"{len(cases)}"
        tensors[name] = result.latents
        cases.append({"name": name, **asdict(request), "strength": strength, "timesteps": result.timesteps})
    if has_vae(pipeline):
        width, height = SIZE
        pixels = tensors[f"image/{width}x{height}"] / 127.5 - 1
        distribution = pipeline.vae.encode(pixels).latent_dist
        tensors["moments"] = torch.cat([distribution.mean, distribution.logvar], dim=1)
        factor = pipeline.vae.config.scaling_factor
        tensors["mode"] = factor * distribution.mode()
        tensors["sample"] = factor * distribution.sample(generators(42, 1)[0])
    save(tensors, folder / "img2img.safetensors")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (folder / "img2img.json").write_text(f'{{"runs": [\n{lines}\n]}}\n', encoding="utf-8")


def write_results(models: Path, folder: Path, only: list[str]) -> None:
    """What the small models compute."""
    for name in only:
        pipeline = load_pipeline(models / name)
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_text(pipeline, out)
        write_unet_calls(pipeline, out)
        factor = pipeline.vae_scale_factor
        unet = trace_once(pipeline, PROMPTS[:1], 17 * factor, 9 * factor, 501.0, 0, ("unet",), UNET_KEPT)
        unet.save(out / "unet_trace.safetensors")
        if has_vae(pipeline):
            vae = trace_once(pipeline, PROMPTS[:1], 5 * factor, 3 * factor, 501.0, 0, ("vae", "vae_encoder"), VAE_KEPT)
            vae.save(out / "vae_trace.safetensors")
        text = trace_once(pipeline, PROMPTS[:1], 5 * factor, 3 * factor, 501.0, 0, ("text_encoder",), TEXT_KEPT)
        text.save(out / "text_trace.safetensors")
        write_image_runs(pipeline, out)
        write_runs(pipeline, out, ARCHITECTURES[name].scheduler.get("prediction_type") == "v_prediction")
    lines = json.dumps({"prompts": PROMPTS}, ensure_ascii=False, indent=1)
    (folder / "prompts.json").write_text(lines + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parts = ("schedulers", "models", "results", "img2img")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; default: all")
    parser.add_argument("--only", action="append", choices=MODELS, help="models; default: all")
    args = parser.parse_args()
    chosen, only = args.parts or parts[:3], args.only or list(MODELS)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]}; there are {', '.join(parts)}")
    if "schedulers" in chosen:
        scheduler_fixtures.write(FIXTURES / "schedulers")
    if "models" in chosen:
        write_models(FIXTURES / "models", only)
    if "results" in chosen:
        write_results(FIXTURES / "models", FIXTURES / "results", only)
    elif "img2img" in chosen:
        for name in only:
            write_image_runs(load_pipeline(FIXTURES / "models" / name), FIXTURES / "results" / name)


if __name__ == "__main__":
    main()
