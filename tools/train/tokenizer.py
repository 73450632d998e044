"""Makes cub's vocabulary: byte-level BPE in CLIP's file format, learnt from the world's captions and everyday words.

    python tokenizer.py -o DIR

Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json. The ids are laid out as CLIP's: the
256 bytes, the 256 bytes at a word's end, one token per merge, <|startoftext|>, <|endoftext|>. Any text encodes, since
every byte has a token of its own.
"""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from world import captions, sample

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
SIZE = 2048
EVERYDAY_WORDS = Path(__file__).with_name("everyday_words.txt")

# How transformers' CLIPTokenizer splits a prompt into words.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, in CLIP's order of ids: printable bytes first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]


def corpus(scenes: int) -> list[str]:
    """The captions of the first scenes, then the everyday words; captions are so many that their words come first."""
    texts = [text for seed in range(scenes) for text in captions(sample(seed), seed, 8)]
    words = [line for line in EVERYDAY_WORDS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return texts + words


def learn_merges(texts: list[str], count: int) -> list[tuple[str, str]]:
    """The `count` merges that shorten the texts most, best first.

    Equally good ones come in another order at each call, since the trainer's hash maps have random seeds: a model has
    to keep the files of its tokenizer.

    Raises ValueError where the texts have too few different words for so many.
    """
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # More than enough room: how many byte units with </w> the trainer counts depends on the texts.
    trainer = BpeTrainer(
        vocab_size=512 + count, initial_alphabet=byte_letters(), end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]][:count]
    if len(merges) < count:
        raise ValueError(f"the texts give {len(merges)} merges, not {count}; ask for fewer tokens or add words")
    return merges


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id."""
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges), BOS, EOS]
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise ValueError("two merges make the same token")
    return ids


def write(folder: Path, merges: list[tuple[str, str]]) -> None:
    """Writes the four files of a tokenizer folder."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    bos, eos = {"content": BOS, **flags}, {"content": EOS, **flags}
    special = {"bos_token": bos, "eos_token": eos, "pad_token": EOS, "unk_token": eos}
    config = {
        "add_prefix_space": False,
        **{name: {"__type": "AddedToken", **value} for name, value in special.items() if name != "pad_token"},
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": LENGTH,
        "pad_token": EOS,
        "tokenizer_class": "CLIPTokenizer",
    }
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=SIZE, help="tokens, bytes and special tokens included")
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes whose captions are read")
    args = parser.parse_args()
    merges = learn_merges(corpus(args.scenes), args.size - 514)
    write(args.output, merges)
    print(f"{args.output}: {len(merges) + 514} tokens")


if __name__ == "__main__":
    main()
