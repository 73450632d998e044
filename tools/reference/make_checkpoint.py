"""Makes a checkpoint with seeded random weights, in the layout of a real one.

    python make_checkpoint.py --arch sd15 --layout folder --dtype f32 -o models/sd15
    python make_checkpoint.py --arch sd15 --layout single --dtype f16 --extras -o models/sd15-f16.safetensors
    python make_checkpoint.py --arch tiny-v --layout single --check -o tiny-v.safetensors

Every tensor's values depend on the seed and its diffusers name alone, so both layouts and all element types of one
seed are the same model. The scales keep activations near 1 through all layers; no bias is zero and no norm weight is
one, so that a forgotten one shows.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

import ldm_keys
from architectures import ARCHITECTURES, SD_SCHEDULER, Architecture
from vocabulary import write_tokenizer

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
FILES = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def random_tensor(seed: int, component: str, name: str, shape: torch.Size) -> torch.Tensor:
    """The f32 values of one tensor."""
    digest = hashlib.sha256(f"{seed}/{component}.{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        is_scale = name.endswith("weight")
        return 1 + 0.1 * values if is_scale else 0.05 * values
    if name.endswith("token_embedding.weight"):
        return 0.5 * values
    if name.endswith("position_embedding.weight"):
        return 0.2 * values
    if name.endswith("decoder.conv_out.weight"):
        return values * (0.5 / math.sqrt(shape[1:].numel()))  # keeps most pixels inside -1..1
    return values * (1 / math.sqrt(shape[1:].numel()))


def shapes(arch: Architecture, component: str) -> dict[str, torch.Size]:
    """Names and shapes of a component's tensors, from the library's own model class."""
    with torch.device("meta"):
        if component == "unet":
            model = UNet2DConditionModel.from_config(arch.unet)
        elif component == "vae":
            model = AutoencoderKL.from_config(arch.vae)
        else:
            model = CLIPTextModel(CLIPTextConfig(**arch.text_encoder))
    return {name: tensor.shape for name, tensor in model.state_dict().items() if "position_ids" not in name}


def component_state(arch: Architecture, component: str, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A component's tensors under diffusers' names."""
    return {
        name: random_tensor(seed, component, name, shape).to(dtype) for name, shape in shapes(arch, component).items()
    }


def position_ids(arch: Architecture) -> torch.Tensor:
    """The buffer that older transformers saved with the text encoder."""
    return torch.arange(arch.text_encoder["max_position_embeddings"]).unsqueeze(0)


def legacy_names(arch: Architecture, component: str, state: dict) -> dict:
    """The names that the published folders have, and diffusers and transformers still read."""
    if component == "text_encoder":
        state = {f"text_model.{name}": tensor for name, tensor in state.items()}
        state["text_model.embeddings.position_ids"] = position_ids(arch)
    if component == "vae":
        for new, old in OLD_VAE_ATTENTION.items():
            state = {name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): t for name, t in state.items()}
    return state


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    """Writes one safetensors file, readable by all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)


def save_sharded(state: dict[str, torch.Tensor], folder: Path, stem: str, shard_bytes: int | None) -> None:
    """Writes `stem.safetensors`, or, when that would exceed shard_bytes, numbered shards with their index."""
    shards, room = [{}], shard_bytes
    for name, tensor in state.items():
        if shard_bytes and shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room = (room or 0) - tensor.nbytes
    if len(shards) == 1:
        return save(state, folder / f"{stem}.safetensors")
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        save(shard, folder / file)
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": weight_map}
    write_json(folder / f"{stem}.safetensors.index.json", index)


def write_json(path: Path, value: dict) -> None:
    """Writes a config file the way the published ones look."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_folder(arch: Architecture, folder: Path, seed: int, dtype: torch.dtype, shard_bytes: int | None) -> None:
    """Writes a checkpoint in diffusers' folder layout."""
    components = [component for component in FILES if getattr(arch, component) is not None]
    for component in components:
        state = component_state(arch, component, seed, dtype)
        if arch.legacy_keys:
            state = legacy_names(arch, component, state)
        save_sharded(state, folder / component, FILES[component], shard_bytes)
        write_json(folder / component / "config.json", getattr(arch, component))
    write_tokenizer(folder / "tokenizer", arch.pad_token, arch.merges)
    write_json(folder / "scheduler/scheduler_config.json", arch.scheduler)
    index = {
        "_class_name": "StableDiffusionPipeline" if arch.vae else "DiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", arch.scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"] if arch.vae else [None, None],
    }
    write_json(folder / "model_index.json", index)


def single_file_state(arch: Architecture, seed: int, dtype: torch.dtype, extras: bool) -> dict[str, torch.Tensor]:
    """All tensors of a single-file checkpoint."""
    state = ldm_keys.unet_to_ldm(component_state(arch, "unet", seed, dtype))
    state.update(ldm_keys.vae_to_ldm(component_state(arch, "vae", seed, dtype)))
    text = component_state(arch, "text_encoder", seed, dtype)
    if arch.open_clip:
        state.update(ldm_keys.clip_to_open_clip({**text, **unused_text_layer(arch, text, seed, dtype)}))
        width = arch.text_encoder["hidden_size"]
        projection = random_tensor(seed, "open_clip", "text_projection.weight", torch.Size((width, width)))
        state["cond_stage_model.model.text_projection"] = projection.to(dtype)
        state["cond_stage_model.model.logit_scale"] = torch.tensor(4.6052).to(dtype)
    else:
        state.update(ldm_keys.clip_to_ldm(text))
        if extras:
            state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = position_ids(arch)
    if extras:
        state.update(training_leftovers())
    return state


def unused_text_layer(arch: Architecture, text: dict, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """OpenCLIP's last layer, which SD2 files hold but the pipeline, taking the penultimate output, never runs."""
    layers = arch.text_encoder["num_hidden_layers"]
    first = {name: tensor for name, tensor in text.items() if name.startswith("encoder.layers.0.")}
    names = {name.replace("layers.0.", f"layers.{layers}."): tensor.shape for name, tensor in first.items()}
    return {name: random_tensor(seed, "text_encoder", name, shape).to(dtype) for name, shape in names.items()}


def training_leftovers() -> dict[str, torch.Tensor]:
    """Noise-schedule buffers and EMA counters that ldm files carry and no weight loader wants."""
    start, end, steps = (SD_SCHEDULER[k] for k in ("beta_start", "beta_end", "num_train_timesteps"))
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    product = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), product[:-1]])
    variance = betas * (1 - before) / (1 - product)
    buffers = {
        "betas": betas,
        "alphas_cumprod": product,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": product.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - product).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - product).log(),
        "sqrt_recip_alphas_cumprod": (1 / product).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / product - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - product),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - product),
        "model_ema.decay": torch.tensor(0.9999),
    }
    return {**{k: v.float() for k, v in buffers.items()}, "model_ema.num_updates": torch.tensor(470000)}


def check_single_file(arch: Architecture, state: dict[str, torch.Tensor], seed: int, dtype: torch.dtype) -> None:
    """Converts a single file back with diffusers' own functions; raises unless every tensor comes out equal."""
    from diffusers.loaders import single_file_utils as diffusers_ldm

    back = {
        "unet": diffusers_ldm.convert_ldm_unet_checkpoint(state, arch.unet),
        "vae": diffusers_ldm.convert_ldm_vae_checkpoint(state, arch.vae),
    }
    if arch.open_clip:
        with torch.device("meta"):
            text_model = CLIPTextModel(CLIPTextConfig(**arch.text_encoder))
        back["text_encoder"] = diffusers_ldm.convert_open_clip_checkpoint(text_model, state)
    else:
        back["text_encoder"] = diffusers_ldm.convert_ldm_clip_checkpoint(state)
    for component, converted in back.items():
        converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
        expected = component_state(arch, component, seed, dtype)
        unused = f"encoder.layers.{arch.text_encoder['num_hidden_layers']}."
        extra = {n for n in converted if not n.startswith((unused, "text_projection", "embeddings.position_ids"))}
        if extra != set(expected):
            raise ValueError(f"{component}: names differ: {sorted(extra ^ set(expected))[:6]}")
        for name, tensor in expected.items():
            if not torch.equal(converted[name], tensor):
                raise ValueError(f"{component}.{name}: values differ")
        print(f"{component}: {len(expected)} tensors come back equal through diffusers' converter")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=ARCHITECTURES, required=True)
    parser.add_argument("--layout", choices=("folder", "single"), default="folder")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=float, metavar="MB", help="folder layout: split files above this size")
    parser.add_argument("--extras", action="store_true", help="single file: add position_ids, schedule and EMA buffers")
    parser.add_argument("--check", action="store_true", help="single file: convert back with diffusers and compare")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()

    arch, dtype = ARCHITECTURES[args.arch], DTYPES[args.dtype]
    if args.layout == "single" and arch.vae is None:
        parser.error(f"--layout single: {args.arch} has no VAE, which a single file always has")
    if args.layout == "folder":
        shard_bytes = int(args.shard_size * 1e6) if args.shard_size else None
        write_folder(arch, args.output, args.seed, dtype, shard_bytes)
    else:
        state = single_file_state(arch, args.seed, dtype, args.extras)
        save(state, args.output)
        if args.check:
            check_single_file(arch, state, args.seed, dtype)
    print(args.output)


if __name__ == "__main__":
    main()
