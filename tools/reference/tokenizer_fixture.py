"""Writes tests/fixtures/tokenizer/clip.json: awkward prompts and their ids from transformers' CLIPTokenizer.

    python tools/reference/tokenizer_fixture.py

Needs transformers 5.23 and nothing from the network: the vocabulary is crates/ratel-diffusion/data/clip_merges.txt.gz.
The fixture has one entry per kind of tokenizer folder: the folder's small files (vocab.json, merges.txt and
tokenizer.json's vocabulary are left out: they follow from the merges), its padding id, and its cases
[prompt, ids up to the first EOS that stands before the padding]. Everything is seeded.

With `--random N FILE` it writes N further seeded cases, one JSON line [kind, prompt, ids] each, for a longer comparison
(`cargo test -p ratel-diffusion --test tokenizer -- --ignored`, with RATEL_TOKENIZER_CASES naming the file).
"""

import argparse
import gzip
import json
import random
import tempfile
import unicodedata
from pathlib import Path

import transformers
from transformers import CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
MERGES = ROOT / "crates/ratel-diffusion/data/clip_merges.txt.gz"
FIXTURE = ROOT / "tests/fixtures/tokenizer/clip.json"
BOS, EOS, LENGTH = "<|startoftext|>", "<|endoftext|>", 77


def flagged(content, normalized, **more):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False, **more}


def folders():
    """The small files of each kind of tokenizer folder, as the published checkpoints have them."""
    config = {
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken", **flagged(BOS, True)},
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", **flagged(EOS, True)},
        "errors": "replace",
        "model_max_length": LENGTH,
        "pad_token": EOS,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", **flagged(EOS, True)},
    }
    special = {"bos_token": flagged(BOS, True), "eos_token": flagged(EOS, True), "unk_token": flagged(EOS, True)}
    listed = {
        "0": flagged("!", False, special=True),
        "49406": flagged(BOS, True, special=True),
        "49407": flagged(EOS, True, special=True),
    }
    plain = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "model_max_length": LENGTH}
    return {
        # Only vocab.json and merges.txt.
        "bare": {},
        # SD1, as transformers 4 wrote it. "<|endoftext|>" is padding too, as text, which takes its flags away.
        "sd1": {"tokenizer_config.json": config, "special_tokens_map.json": {**special, "pad_token": EOS}},
        # SD2: the map says "!", the config contradicts it, and the map wins.
        "sd2": {"tokenizer_config.json": config, "special_tokens_map.json": {**special, "pad_token": "!"}},
        # SDXL's second tokenizer: the config lists the added tokens, and the map is not asked.
        "sdxl2": {
            "tokenizer_config.json": {**plain, "pad_token": "!", "added_tokens_decoder": listed},
            "special_tokens_map.json": {**special, "pad_token": EOS},
        },
        # A concept learnt by textual inversion, and a token that swallows the white space around it.
        "concept": {
            "tokenizer_config.json": {**plain, "pad_token": EOS},
            "added_tokens.json": {"<cat-toy>": 49408, "Sks": 49409},
            "special_tokens_map.json": {"mask_token": flagged("[Mask]", False, lstrip=True, rstrip=True)},
        },
        # tokenizer.json only; its own normalizer is not used.
        "json": {
            "tokenizer_config.json": {**plain, "pad_token": EOS},
            "tokenizer.json": {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [
                    {"id": 49406, **flagged(BOS, True, special=True)},
                    {"id": 49407, **flagged(EOS, False, special=True)},
                ],
                "normalizer": {"type": "NFKC"},
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "BPE"},
            },
        },
        # SD2 as transformers 5 saves it again: no map, merges as pairs ("pairs" stands for them).
        "saved": {
            "tokenizer_config.json": {**plain, "pad_token": "!", "backend": "tokenizers", "is_local": True},
            "tokenizer.json": {
                "version": "1.0",
                "added_tokens": [{"id": int(id), **token} for id, token in listed.items()],
                "model": {"type": "BPE", "unk_token": EOS, "end_of_word_suffix": "</w>", "merges": "pairs"},
            },
        },
    }


def clip_vocabulary():
    merges = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(code) for code in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]
    tokens = alphabet + [c + "</w>" for c in alphabet] + [merge.replace(" ", "") for merge in merges] + [BOS, EOS]
    assert len(tokens) == 49408
    return {token: number for number, token in enumerate(tokens)}, merges


def load(files):
    vocabulary, merges = clip_vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            if name == "tokenizer.json":
                pairs = content["model"].get("merges") == "pairs"
                listed = [merge.split(" ") for merge in merges] if pairs else merges
                content = {**content, "model": {**content["model"], "vocab": vocabulary, "merges": listed}}
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        if "tokenizer.json" not in files:
            (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
            (Path(folder) / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder)


def encode(tokenizer, prompts):
    batch = tokenizer(prompts, padding="max_length", max_length=LENGTH, truncation=True)
    return [ids[: sum(mask)] for ids, mask in zip(batch["input_ids"], batch["attention_mask"])]


SPECIAL = [
    BOS,
    EOS,
    "a" + BOS + "b",
    f"cat{EOS}dog {EOS} end",
    f"{BOS}{BOS}{EOS}{EOS}",
    BOS.upper(),
    EOS.upper(),
    "x<|StartOfText|>y <|EndOfText|>z",
    "<|startoftext|",
    "|endoftext|>",
    "< |endoftext|>",
    "<|endoftext|><|endoftext",
    "!",
    "hello! world!!! wow !!",
    "?! !? '!' a!b",
    "！ full width",
    "<cat-toy> and <CAT-TOY> a<cat-toy>b sks Sks SKS asksb",
    "one  [Mask]  two [mask]\n[Mask]\tthree",
    "the </w> cat</w> </w>",
    "<pad> <unk> [PAD] <s> </s>",
    "",
    " ",
    "a photo of a cat",
]

AWKWARD = [
    # English
    "A photograph of an astronaut riding a horse",
    "masterpiece, best quality, (ultra-detailed:1.3), [blurry], 8k uhd, f/1.8, 35mm",
    "it's don't we're I've I'm she'll he'd 'tis rock'n'roll O'Neill's",
    "IT'S DON'T WE'RE I'VE I'M SHE'LL HE'D 'S 'LL '",
    "''s 's's ''' ’s don’t it’s",
    "can't'd've y'all'd've 'd'd 're're 'm'm",
    "1234567890 3.14159 1e-5 v1.5 2nd 10,000",
    "hello,world;foo:bar|baz\\qux/quux",
    "C++ C# F# .NET node.js a+b=c $100 50% #hashtag @user user@example.com https://example.com/a?b=c&d=e",
    "&amp; &lt;b&gt; &quot; &#39; <b>bold</b> %20",
    "under_score kebab-case camelCase SCREAMING_CASE",
    "----- ===== ***** ~~~~~ ..... ,,,,, ((((( ))))) {[<>]}",
    # White space of all kinds
    "  leading and trailing  ",
    "tab\tnewline\ncarriage\rreturn\r\nform\x0cfeed\x0bvertical",
    "no\u00a0break thin\u2009space hair\u200aspace em\u2003space ideographic\u3000space ogham\u1680space",
    "nel\u0085line ls\u2028ps\u2029end nnbsp\u202fmmsp\u205fend mongolian\u180evowel",
    "zero\u200bwidth zwnj\u200cx zwj\u200dx bom\ufeffx wj\u2060x shy\u00adx",
    "\u200b",
    "\ufeffbom first",
    "\x1c\x1d\x1e\x1fseparators",
    # Control characters
    "null\x00byte",
    "\x00",
    "\x01\x02\x03 \x07bell \x08back \x1b[31mred\x1b[0m \x7fdel \x80\x81\x9f",
    # Accents, composed and not
    "café cafe\u0301 CAFÉ CAFE\u0301 naïve nai\u0308ve Ångström A\u030angstro\u0308m \u212bngstrom",
    "Việt Nam tiếng Việt Vie\u0323\u0302t q\u0307\u0323 q\u0323\u0307",
    "\u0301leading mark a\u0301\u0301\u0301\u0301 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "ﬁ ﬂ ﬀ ﬃ ﬆ ĳ ǆ ǅ Ǆ",
    "½ ¼ ² ³ ¹ ⁰ ₁ Ⅷ ⅷ ① ⑳ ㊿ 〇 ௧௨௩",
    "Ω Ω K K Å Å ∑ π ∞ ≠ ≤ √ ∂",
    # Lower case of odd scripts
    "İstanbul ISTANBUL ıstanbul I\u0307 ẞ ß SS STRASSE",
    "ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ ΣΑΣ Σ ς σ ᾼ ᾳ ᾈ Ὰͅ",
    "ПРИВЕТ Привет ЁЖ Й И\u0306 Ꙁ Ԁ",
    "ԲԱՐԵՒ Ⴀ Ა ა Ꭰ ꭰ Ꮿ Ᏸ 𐐀 𐐨 𞤀 𞤢 Ⓐ ⓐ Ａ ａ Ⰰ Ⲁ Ꞓ Ɪ",
    "ǅungla ǲ ŉ ǰ ΐ ﬗ Ǆ",
    # Scripts
    "一只猫的照片 猫の写真を撮る 고양이 사진 カタカナ ｶﾀｶﾅ が か\u3099 각 각",
    "漢字かな交じり文、句読点。「引用」！？",
    "𠮷野家 𩸽 㐂 鿿 豈 更",
    "แมวน่ารัก กำลังนอน น้ำ ๐๑๒๓๔๕๖๗๘๙",
    "शब्द हिन्दी क्षत्रिय क़ क\u093c १२३ தமிழ் తెలుగు ಕನ್ನಡ മലയാളം বাংলা ৎ",
    "مرحبا بالعالم السَّلَامُ عَلَيْكُمْ ١٢٣٤ ۱۲۳ ﷺ ﷽ \u202bRTL\u202c \u200fmark\u200e",
    "שלום עולם שָׁלוֹם ﬡ יִ",
    "မြန်မာ ខ្មែរ ລາວ བོད་ཡིག འ ᠮᠣᠩᠭᠣᠯ አማርኛ ქართული Հայերեն",
    "ᚠᚢᚦ ⲁⲃⲅ 𓀀𓁐 𒀀𒁀 𐎀 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝐁𝐨𝐥𝐝 𝟙𝟚𝟛 ℍ ℵ",
    # Emoji
    "😀 😃😄 ❤️ ❤ ☺️ ✌🏽 👍🏿 🇩🇪🇫🇷 1️⃣ #️⃣ ©️ ™ ‼️",
    "👨‍👩‍👧‍👦 👩🏾‍🚀 🏳️‍🌈 🏴‍☠️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🧑🏻‍❤️‍💋‍🧑🏿 🫠 🩷 🫨",
    "cat😀dog 😀cat 1😀2 '😀's",
    # Code points that are nothing
    "\ufffd \ufffe \uffff \U0010ffff \U000e0001 \ue000 \uf8ff \u0378 \U0001fbf0 \u2fff",
    # Long
    "a" * 500,
    "supercalifragilisticexpialidocious" * 20,
    "x " * 100,
    "1" * 200,
    "🎉" * 60,
    "é" * 120,
    "猫" * 90,
    "word " * 74 + "end",
    "word " * 75 + "end",
    "word " * 76 + "end",
    "a " * 74 + "antidisestablishmentarianism floccinaucinihilipilification",
    "the quick brown fox jumps over the lazy dog " * 20,
    ("!" * 100),
    ("," * 37 + " ") * 4,
    "a " * 75 + EOS,
    "a " * 73 + EOS + " b c d",
]

# Runs of code points to draw random prompts from: each entry is (weight, [ranges]).
BLOCKS = [
    (6, [(0x20, 0x7E)]),
    (2, [(0x00, 0x9F)]),
    (3, [(0xA0, 0x24F)]),
    (3, [(0x300, 0x36F)]),
    (2, [(0x370, 0x52F)]),
    (2, [(0x530, 0x8FF)]),
    (2, [(0x900, 0xDFF)]),
    (2, [(0xE00, 0x10FF)]),
    (1, [(0x1100, 0x11FF), (0xAC00, 0xAC60)]),
    (2, [(0x1E00, 0x1FFF)]),
    (2, [(0x2000, 0x206F)]),
    (2, [(0x2070, 0x2BFF)]),
    (1, [(0x2C00, 0x2FFF)]),
    (2, [(0x3000, 0x30FF), (0x4E00, 0x4F00)]),
    (1, [(0xA000, 0xABFF)]),
    (1, [(0xF900, 0xFFFF)]),
    (2, [(0x1F300, 0x1FAFF)]),
    (1, [(0x10000, 0x1FFFF)]),
    (1, [(0x20000, 0x33FFF), (0xE0000, 0xE01EF)]),
]
PIECES = [BOS, EOS, "'s", "'LL", "'re", " ", "  ", "\n", "!", "\u200d", "\ufe0f", "the", "Cat", "</w>", "<|", "|>", "\u0301"]
PIECES += ["<cat-toy>", "Sks", " [Mask] ", "\u0130", "\u03a3", "\u1e9e", "\u1100\u1161\u11a8", "photo of", "\u3099", "\u0344"]


def random_prompt(rng):
    """Some runs of characters of one block each, with pieces that mean something strewn in."""
    out = []
    for _ in range(rng.randint(1, 8)):
        if rng.random() < 0.3:
            out.append(rng.choice(PIECES))
            continue
        (ranges,) = rng.choices([ranges for _, ranges in BLOCKS], [weight for weight, _ in BLOCKS])
        for _ in range(rng.randint(1, rng.choice([3, 8, 20]))):
            low, high = rng.choice(ranges)
            character = chr(rng.randint(low, high))
            out.append(" " if unicodedata.category(character) == "Cs" else character)
    return "".join(out)


def write_fixture():
    rng = random.Random(20)
    kinds = {}
    for kind, files in folders().items():
        prompts = SPECIAL + (AWKWARD + [random_prompt(rng) for _ in range(350)] if kind == "bare" else [])
        tokenizer = load(files)
        pad = tokenizer.convert_tokens_to_ids(tokenizer.pad_token)
        cases = list(zip(prompts, encode(tokenizer, prompts)))
        kinds[kind] = {"files": files, "pad": pad, "cases": cases}
    lines = []
    for kind, entry in kinds.items():
        cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in entry["cases"])
        files = json.dumps(entry["files"], separators=(",", ":"))
        lines.append(f'"{kind}":{{"pad":{entry["pad"]},"files":{files},"cases":[\n{cases}]}}')
    about = f"transformers {transformers.__version__} CLIPTokenizer, by tools/reference/tokenizer_fixture.py"
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(f'{{"about":"{about}",\n"kinds":{{\n' + ",\n".join(lines) + "}}\n", encoding="ascii")


def write_random(count, path):
    """Every code point in several neighbourhoods, for a bare folder; then `count` random prompts, kinds in turn."""
    rng = random.Random(21)
    # Python's own Unicode may be older than the tokenizer's, so unassigned code points count too. Private planes don't.
    scalars = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE1000)]]
    prompts = [f"a{c}a 1{c}1 .{c}. {c} \u00e9{c}\u0301" for c in scalars]
    prompts += ["".join(scalars[start : start + 8]) for start in range(0, len(scalars), 8)]
    cases = [("bare", prompt) for prompt in prompts]
    kinds = list(folders())
    cases += [(kinds[number % len(kinds)], random_prompt(rng)) for number in range(count)]
    with open(path, "w", encoding="ascii") as out:
        for kind, files in folders().items():
            tokenizer = load(files)
            mine = [prompt for of, prompt in cases if of == kind]
            for start in range(0, len(mine), 1000):
                batch = mine[start : start + 1000]
                for prompt, ids in zip(batch, encode(tokenizer, batch)):
                    out.write(json.dumps([kind, prompt, ids], separators=(",", ":")) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", nargs=2, metavar=("N", "FILE"))
    arguments = parser.parse_args()
    if arguments.random:
        write_random(int(arguments.random[0]), arguments.random[1])
    else:
        write_fixture()
