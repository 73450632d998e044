"""CLIP's byte-pair vocabulary, whole or cut short, as the files of a checkpoint's tokenizer folder."""

import gzip
import json
from pathlib import Path

MERGES = Path(__file__).resolve().parents[2] / "crates/ratel-diffusion/data/clip_merges.txt.gz"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, in CLIP's order of ids (printable bytes first)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]


def clip_vocabulary(merge_count: int | None = None) -> tuple[dict[str, int], list[str]]:
    """CLIP's vocabulary {token: id} and its merges. merge_count keeps the first so many merges: a merge only ever joins
    tokens made before it, so the beginning of the list is a vocabulary too, and any text still encodes."""
    merges = gzip.decompress(MERGES.read_bytes()).decode().splitlines()[:merge_count]
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(m.replace(" ", "") for m in merges), BOS, EOS]
    return {token: number for number, token in enumerate(tokens)}, merges


def write_tokenizer(folder: Path, pad_token: str, merge_count: int | None = None) -> None:
    """Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = clip_vocabulary(merge_count)
    special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    config = {
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken", "content": BOS, **special},
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", "content": EOS, **special},
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": pad_token,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", "content": EOS, **special},
    }
    special_tokens = {
        "bos_token": {"content": BOS, **special},
        "eos_token": {"content": EOS, **special},
        "pad_token": pad_token,
        "unk_token": {"content": EOS, **special},
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens, indent=2) + "\n", encoding="utf-8")
