"""Puts a run's averaged weights into one folder that diffusers and Ratel read.

    python export.py RUN [--vae RUN] -o FOLDER

The folder is what diffusers' StableDiffusionPipeline saves: model_index.json, scheduler/, tokenizer/, text_encoder/,
unet/ and vae/, the weights as f16 safetensors; and ratel.json, which diffusers ignores: the steps and guidance with
which Ratel draws where nobody says otherwise.
"""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch

from sample import load_run, scheduler

LIMIT = 24_000_000
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


def write(folder: Path, networks, tokenizer_folder: Path, defaults: dict) -> int:
    """Writes the folder and gives its size in bytes. networks: text encoder, unet, vae. defaults: what ratel.json says.

    Raises ValueError where a weight does not fit in f16 or the folder is larger than LIMIT.
    """
    for name, network in zip(("text_encoder", "unet", "vae"), networks, strict=True):
        network = network.to(torch.float16)
        broken = [key for key, tensor in network.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(f"{name}.{broken[0]} is not finite in f16")
        network.save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_folder / name, folder / "tokenizer" / name)
    for config in folder.glob("*/config.json"):
        tidy(config)
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n", encoding="utf-8")
    (folder / "ratel.json").write_text(json.dumps(defaults) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        raise ValueError(f"{folder} has {size} bytes, more than {LIMIT}")
    return size


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
    parser.add_argument("--steps", type=int, default=20, help="Ratel's default for this model")
    parser.add_argument("--cfg", type=float, default=5.0, help="Ratel's default for this model")
    args = parser.parse_args()
    _, *networks = load_run(args.run, args.vae)
    args.output.mkdir(parents=True, exist_ok=True)
    defaults = {"num_inference_steps": args.steps, "guidance_scale": args.cfg}
    size = write(args.output, networks, args.run / "tokenizer", defaults)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in zip(("text", "unet", "vae"), networks)}
    print(f"{args.output}: {size / 1e6:.2f} MB, parameters {counts}")


if __name__ == "__main__":
    main()
