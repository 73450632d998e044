"""The training data as the networks take it: cached latents and token ids."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from cub_model import LENGTH, PIXEL_SIDE, load_vae

ENCODE_BATCH = 64


@dataclass
class Pictures:
    """One folder of pictures, all of one size.

    latents: (N, 4, h, w) f16 memory map, scaled; in image space the pictures themselves, (N, 3, h, w) in -1 to 1.
    tokens: (N, captions, 77) int16.
    """

    name: str
    latents: numpy.ndarray
    tokens: numpy.ndarray

    def batch(self, rows: numpy.ndarray, columns: numpy.ndarray) -> tuple[Tensor, Tensor]:
        """Latents f32 and token ids int64 of the pictures `rows`, with caption `columns` of each."""
        latents = torch.from_numpy(self.latents[rows].astype(numpy.float32))
        return latents, torch.from_numpy(self.tokens[rows, columns].astype(numpy.int64))


def load(folder: Path, vae_folder: Path | None, tokenizer, device: torch.device) -> Pictures:
    """Reads a folder of data.py, encoding its pictures with the autoencoder unless that was done before, or, without
    an autoencoder, shrinking them to PIXEL_SIDE.

    Raises ValueError where pictures and captions don't fit together.
    """
    with (folder / "captions.json").open(encoding="utf-8") as file:
        captions = json.load(file)
    latents = cached_latents(folder, vae_folder, device) if vae_folder else shrunk(folder / "images.npy")
    counts = {len(texts) for texts in captions}
    if len(captions) != len(latents) or len(counts) != 1:
        raise ValueError(f"{folder}: {len(latents)} pictures, {len(captions)} lists of captions of lengths {counts}")
    return Pictures(folder.name, latents, token_ids(tokenizer, captions))


def token_ids(tokenizer, captions: list[list[str]]) -> numpy.ndarray:
    """(N, captions, 77) int16. Each text is tokenized once, since many captions repeat."""
    texts = sorted({text for texts in captions for text in texts})
    ids = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="np")["input_ids"]
    row = {text: number for number, text in enumerate(texts)}
    return ids.astype(numpy.int16)[numpy.array([[row[text] for text in texts] for texts in captions])]


def cached_latents(folder: Path, vae_folder: Path, device: torch.device) -> numpy.ndarray:
    """The posterior's means of the folder's pictures times the scaling factor, f16, from the cache beside the
    autoencoder; the cache's name holds a digest of the weights and of the pictures' size and time."""
    pictures = folder / "images.npy"
    digest = hashlib.sha256(f"{pictures.stat().st_size} {pictures.stat().st_mtime_ns}".encode())
    for weights in sorted(vae_folder.rglob("*.safetensors")):
        digest.update(weights.read_bytes())
    path = vae_folder / "latents" / f"{folder.name}-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        encode(numpy.load(pictures, mmap_mode="r"), load_vae(vae_folder).to(device), device, partial)
        os.replace(partial, path)
    return numpy.load(path, mmap_mode="r")


def shrunk(path: Path) -> numpy.ndarray:
    """Pictures (N, H, W, 3) uint8 as (N, 3, h, w) f16 in -1 to 1, each pixel the mean of a square, the shorter side
    PIXEL_SIDE."""
    pictures = numpy.load(path, mmap_mode="r")
    count, height, width, _ = pictures.shape
    step = min(height, width) // PIXEL_SIDE
    out = numpy.empty((count, 3, height // step, width // step), numpy.float16)
    for start in range(0, count, ENCODE_BATCH):
        rows = pictures[start : start + ENCODE_BATCH].astype(numpy.float32)
        means = rows.reshape(len(rows), height // step, step, width // step, step, 3).mean((2, 4))
        out[start : start + ENCODE_BATCH] = (means / 127.5 - 1).transpose(0, 3, 1, 2)
    return out


@torch.inference_mode()
def encode(pictures: numpy.ndarray, vae, device: torch.device, path: Path) -> None:
    """Writes the scaled latents of pictures (N, H, W, 3) uint8."""
    count, height, width, _ = pictures.shape
    shape = (count, vae.config.latent_channels, height // 8, width // 8)
    out = numpy.lib.format.open_memmap(path, "w+", numpy.float16, shape)
    vae = vae.to(memory_format=torch.channels_last)
    for start in range(0, count, ENCODE_BATCH):
        rows = slice(start, min(start + ENCODE_BATCH, count))
        pixels = torch.from_numpy(pictures[rows]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(device.type, torch.bfloat16):
            means = vae.encode(pixels).latent_dist.mean
        out[rows] = (means.float() * vae.config.scaling_factor).cpu().numpy()
        if start // ENCODE_BATCH % 100 == 0:
            print(f"encoding {path.stem}: {start} of {count}", flush=True)
    out.flush()
