"""Puts a run's averaged weights into one folder that diffusers and Ratel read.

    python export.py RUN [--vae RUN] -o FOLDER
    python export.py RUN --text-encoder ../../models/cub -o ../../models/cub-pixels

The folder is what diffusers' StableDiffusionPipeline saves: model_index.json, scheduler/, tokenizer/, text_encoder/,
unet/ and vae/, the weights as f16 safetensors; and ratel.json, which diffusers ignores: the steps and guidance with
which Ratel draws where nobody says otherwise.

A run of image space has no vae, and its text encoder and tokenizer are those of another folder. The second command
leaves them out, after it has made sure that they are the same: the program that has both folders inside shares them.
"""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch
from safetensors.torch import load_file

from sample import load_run, scheduler

LIMIT, PIXEL_LIMIT = 24_000_000, 10_000_000
TOKENIZER_FILES = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write(folder: Path, networks, tokenizer_folder: Path, defaults: dict, shared: Path | None = None) -> int:
    """Writes the folder and gives its size in bytes. networks: text encoder, unet, vae, the last None in image space.
    defaults: what ratel.json says. shared: a folder that has the same text encoder and tokenizer, if they are left out.

    Raises ValueError where a weight does not fit in f16, the folder is larger than its limit, or what is to be shared is
    not the same.
    """
    if shared:
        check_shared(shared, networks[0], tokenizer_folder)
    vae = networks[2]
    for name, network in zip(("text_encoder", "unet", "vae"), networks, strict=True):
        if network is None or (shared and name == "text_encoder"):
            continue
        network = network.to(torch.float16)
        broken = [key for key, tensor in network.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(f"{name}.{broken[0]} is not finite in f16")
        network.save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    if not shared:
        (folder / "tokenizer").mkdir(exist_ok=True)
        for name in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_folder / name, folder / "tokenizer" / name)
    for config in folder.glob("*/config.json"):
        tidy(config)
    pixels = {"_class_name": "DiffusionPipeline", "vae": [None, None]}
    index = INDEX if vae is not None else {**INDEX, **pixels}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / "ratel.json").write_text(json.dumps(defaults) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    limit = PIXEL_LIMIT if shared else LIMIT
    if size > limit:
        raise ValueError(f"{folder} has {size} bytes, more than {limit}")
    return size


def check_shared(folder: Path, text_encoder: torch.nn.Module, tokenizer_folder: Path) -> None:
    """Raises ValueError unless the folder's text encoder, in f16, and tokenizer are these."""
    theirs = load_file(folder / "text_encoder" / "model.safetensors")
    ours = {name.removeprefix("text_model."): tensor.to(torch.float16) for name, tensor in text_encoder.state_dict().items()}
    theirs = {name.removeprefix("text_model."): tensor for name, tensor in theirs.items()}
    wrong = [name for name, tensor in theirs.items() if name not in ours or not torch.equal(tensor, ours[name])]
    if wrong:
        raise ValueError(f"{folder}: text_encoder.{wrong[0]} is not what this run was trained with")
    for name in ("merges.txt", "vocab.json"):
        if (folder / "tokenizer" / name).read_bytes() != (tokenizer_folder / name).read_bytes():
            raise ValueError(f"{folder}: tokenizer/{name} is not what this run was trained with")


def tidy(path: Path) -> None:
    """Removes from a config the folder that the weights came from."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of train_cub.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="another autoencoder than the run's")
    parser.add_argument("--text-encoder", type=Path, help="a folder that has the same, and the tokenizer: leave them out")
    parser.add_argument("--steps", type=int, default=20, help="Ratel's default for this model")
    parser.add_argument("--cfg", type=float, default=5.0, help="Ratel's default for this model")
    args = parser.parse_args()
    _, *networks = load_run(args.run, args.vae)
    args.output.mkdir(parents=True, exist_ok=True)
    defaults = {"num_inference_steps": args.steps, "guidance_scale": args.cfg}
    size = write(args.output, networks, args.run / "tokenizer", defaults, args.text_encoder)
    named = [(name, net) for name, net in zip(("text", "unet", "vae"), networks) if net is not None]
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in named}
    print(f"{args.output}: {size / 1e6:.2f} MB, parameters {counts}")


if __name__ == "__main__":
    main()
