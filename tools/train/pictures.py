"""Has Ratel draw prompts, all in one process, and goes on where it was interrupted."""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "target/release/ratel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all scripts that draw with Ratel have in common. What is left open is Ratel's and the model's to say."""
    parser.add_argument("--ratel", type=Path, default=PROGRAM, help="the program; else this repository's release build")
    parser.add_argument("--model", type=Path, help="a diffusers folder; else the model inside the program")
    parser.add_argument("--space", choices=("latent", "image"), help="which of the models inside the program")
    parser.add_argument("--device", help="as ratel devices lists them")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--cfg-scale", type=float)
    parser.add_argument("--sampler")
    parser.add_argument("--precision", choices=("auto", "f32", "f16"))


def options(args: argparse.Namespace) -> dict[str, str]:
    """The options of these that were given, as Ratel spells them."""
    names = ("model", "space", "device", "width", "height", "steps", "cfg_scale", "sampler", "precision")
    given = {name: getattr(args, name) for name in names}
    return {f"--{name.replace('_', '-')}": str(value) for name, value in given.items() if value is not None}


def digest(folder: Path) -> str:
    """SHA-256 of a model's files and their names."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if path.is_file():
            total.update(f"{path.relative_to(folder)}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def draw_all(args: argparse.Namespace, requests: list[dict], folder: Path) -> list[Path]:
    """Draws each request ({"prompt", "seed", ...}, see ratel generate --help) and returns the pictures' paths.

    Pictures that a run before has left in the folder are not drawn again; a folder of other requests, options or
    weights is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = options(args)
    made_with = {"requests": requests, "options": {**chosen, "--model": args.model and digest(args.model)}}
    note = folder / "made_with.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != made_with:
        raise SystemExit(f"{folder}: holds pictures of other prompts, settings or weights; name another folder")
    note.write_text(json.dumps(made_with, indent=1) + "\n", encoding="utf-8")

    paths = [folder / f"picture_{number:04}.png" for number in range(1, len(requests) + 1)]
    missing = [not path.exists() for path in paths]
    if not any(missing):
        return paths
    # lines that are blank are skipped and counted
    lines = [json.dumps(request) if absent else "" for request, absent in zip(requests, missing, strict=True)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [word for pair in chosen.items() for word in pair]
    command = [args.ratel, "generate", "--from-file", folder / "prompts.jsonl", "-o", folder / "picture.png", *words]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as process:
        for done, line in enumerate(process.stdout, 1):
            said = json.loads(line)
            if done in (1, 2, 5) or done % 10 == 0 or done == sum(missing):
                print(f"{folder.name}: {done} of {sum(missing)}, {said['seconds']:.1f} s each", flush=True)
    if process.returncode:
        raise SystemExit(f"{args.ratel} ended with {process.returncode}")
    return paths
