"""Draws normals from torch's CPU generator and writes them to tests/fixtures/random/torch.json.

    python random_fixture.py
"""

import json
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parents[2] / "tests/fixtures/random"
SEEDS = (0, 1, 42, 2**32 - 1, 2**32 + 42, 2**63 + 7, -1)
COUNTS = (
    (16, 17, 31, 100),
    (1, 2, 3, 15, 1),
    (3, 16, 3, 40, 1),  # the spare half of a pair is kept across a draw of blocks
    (700, 20),  # across a twist of the engine's 624 words
)
"""Sizes of successive draws from one generator."""


def main() -> None:
    """Writes every seed x list of sizes, each draw whole."""
    cases = []
    for seed in SEEDS:
        for counts in COUNTS:
            generator = torch.Generator().manual_seed(seed)
            draws = [torch.randn(n, generator=generator, dtype=torch.float32).tolist() for n in counts]
            cases.append({"seed": seed, "draws": [[round(value, 7) for value in draw] for draw in draws]})
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    (FOLDER / "torch.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
