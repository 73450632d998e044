"""A small classifier that says what a picture of the world shows, to score what a model draws.

    python judge.py train --data DIR [DIR ...] --check DIR [DIR ...] [--minutes 15] -o judge.safetensors
    python judge.py check judge.safetensors --check DIR [DIR ...] [--vae FOLDER] [--report FILE.json]

The folders are those of data.py. It learns from every split, also the one whose combinations are kept from cub, so that
none is strange to it; --check takes folders of other seeds. With --vae the pictures checked have been through an
autoencoder, which softens them as it softens cub's.

What it answers, of pictures of any size (they are scaled to 128 pixels along the shorter side):
    count      0, 1 or 2 subjects
    kind       the only subject's
    colour     the only subject's
    setting
    time       (in space it is always night and isn't asked for)
    relation   of two subjects, said of the one that comes first in SUBJECTS
    pairs      for each kind and colour, whether such a subject is there: of two subjects, which has which colour
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from world import COLOURS, RELATIONS, SETTINGS, SUBJECTS, TIMES, draw, sample

SIDE = 128
RELATION_NAMES = (*RELATIONS, "behind")
OPPOSITE = {"above": "under", "under": "above", "beside": "beside", "in front of": "behind"}
CLASSES = {
    "count": ("0", "1", "2"),
    "kind": SUBJECTS,
    "colour": COLOURS,
    "setting": SETTINGS,
    "time": TIMES,
    "relation": RELATION_NAMES,
}
PAIRS = len(SUBJECTS) * len(COLOURS)
EMPTY_SHARE = 0.04
NOT_ASKED = -100  # torch's cross entropy leaves these out


def relation_of_sorted(kinds: tuple[str, str], relation: str) -> str:
    """The relation as the kind says it that comes first in SUBJECTS."""
    return relation if SUBJECTS.index(kinds[0]) < SUBJECTS.index(kinds[1]) else OPPOSITE[relation]


def targets(labels: list[dict]) -> dict[str, Tensor]:
    """labels.json as class numbers (N), NOT_ASKED where a question has no answer; `pairs` as 0 or 1 (N, PAIRS)."""
    found = {name: torch.full((len(labels),), NOT_ASKED) for name in CLASSES}
    pairs = torch.zeros(len(labels), PAIRS)
    for row, label in enumerate(labels):
        subjects, setting = label["subjects"], label["setting"]
        found["count"][row] = len(subjects)
        found["setting"][row] = SETTINGS.index(setting)
        if setting != "space":
            found["time"][row] = TIMES.index(label["time"])
        if len(subjects) == 1:
            found["kind"][row] = SUBJECTS.index(subjects[0]["kind"])
            found["colour"][row] = COLOURS.index(subjects[0]["colour"])
        if len(subjects) == 2:
            relation = relation_of_sorted((subjects[0]["kind"], subjects[1]["kind"]), label["relation"])
            found["relation"][row] = RELATION_NAMES.index(relation)
        for subject in subjects:
            pairs[row, pair_number(subject["kind"], subject["colour"])] = 1
    return {**found, "pairs": pairs}


def pair_number(kind: str, colour: str) -> int:
    """The place of a kind and colour among the pairs."""
    return SUBJECTS.index(kind) * len(COLOURS) + COLOURS.index(colour)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet's basic block)."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return nn.functional.relu(x + self.body(x))


def halve(before: int, after: int) -> nn.Sequential:
    """To half the height and width."""
    conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


class Judge(nn.Module):
    """0.9 million parameters. One body; each question a head on what the body found, averaged and at its strongest."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 64, 128)):
        super().__init__()
        a, b, c, d = widths
        self.body = nn.Sequential(
            halve(3, a), halve(a, b), halve(b, c), Block(c), halve(c, d), Block(d), Block(d)
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * d, len(CLASSES[name])) for name in ("count", "kind", "colour", "setting", "time")}
        )
        # where something is matters here: the same two numbers of each quarter of the picture
        self.relation = nn.Sequential(nn.Linear(8 * d, 128), nn.ReLU(), nn.Linear(128, len(RELATION_NAMES)))
        self.pairs = nn.Conv2d(d, PAIRS, 1)
        nn.init.constant_(self.pairs.bias, -4.0)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) in 0..1 to logits of every question."""
        found = self.body((pictures - 0.5) / 0.25).float()
        with torch.autocast(pictures.device.type, enabled=False):
            pooled = torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1)
            mean = nn.functional.adaptive_avg_pool2d(found, 2).flatten(1)
            most = nn.functional.adaptive_max_pool2d(found, 2).flatten(1)
            answers = {name: head(pooled) for name, head in self.heads.items()}
            answers["relation"] = self.relation(torch.cat([mean, most], 1))
            # somewhere in the picture: the smooth maximum over places
            places = self.pairs(found).flatten(2)
            answers["pairs"] = places.logsumexp(2) - math.log(places.shape[2])
        return answers


def tensor_of(pictures: numpy.ndarray, device) -> Tensor:
    """uint8 (N, H, W, 3) to (N, 3, H, W) in 0..1."""
    tensor = torch.from_numpy(numpy.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
    return tensor.float().div(255).contiguous(memory_format=torch.channels_last)


def disturb(pictures: Tensor, random: torch.Generator) -> Tensor:
    """What an autoencoder and a sampler do to a picture, each in a measure of its own: mirrored, moved by up to two
    pixels, scaled a little, softened, grainy, blotchy, brighter, of another contrast, tinted."""
    count, device = len(pictures), pictures.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=random)).to(device)

    place = torch.zeros(count, 2, 3, device=device)
    place[:, 0, 0] = uniform(0.97, 1.03) * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    place[:, 1, 1] = uniform(0.97, 1.03)
    place[:, :, 2] = uniform(-2, 2, 2) * 2 / SIDE
    grid = nn.functional.affine_grid(place, list(pictures.shape), align_corners=False)
    moved = nn.functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    soft = int(64 + 64 * torch.rand((), generator=random))
    softened = nn.functional.interpolate(moved, (soft, soft), mode="bilinear", antialias=True)
    softened = nn.functional.interpolate(softened, moved.shape[2:], mode="bicubic")
    moved = torch.where(uniform(0, 1, 1, 1, 1) < 0.6, softened, moved)
    grain = torch.randn(pictures.shape, generator=random).to(device)
    blotches = torch.randn(count, 3, 16, 16, generator=random).to(device)
    blotches = nn.functional.interpolate(blotches, moved.shape[2:], mode="bilinear")
    mean = moved.mean((2, 3), keepdim=True)
    moved = mean + (moved - mean) * uniform(0.9, 1.1, 1, 1, 1) + uniform(-0.05, 0.05, 1, 1, 1)
    moved = moved + uniform(-0.02, 0.02, 3, 1, 1) + uniform(0, 0.03, 1, 1, 1) * grain
    return (moved + uniform(0, 0.04, 1, 1, 1) * blotches).clamp(0, 1).contiguous(memory_format=torch.channels_last)


class Drawings:
    """The pictures of folders, one after the other, and as many without any subject as EMPTY_SHARE says."""

    def __init__(self, folders: list[Path], empty_seed: int):
        self.arrays, labels = [], []
        for folder in folders:
            images = numpy.load(folder / "images.npy", mmap_mode="r")
            if images.shape[1:] != (SIDE, SIDE, 3):
                raise SystemExit(f"{folder}: pictures are {images.shape[1:]}; the judge learns from {SIDE}x{SIDE}")
            found = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            if len(found) != len(images):
                raise SystemExit(f"{folder}: {len(images)} pictures and {len(found)} labels")
            self.arrays.append(images)
            labels += found
        empty = [without_subjects(empty_seed + i) for i in range(int(EMPTY_SHARE * len(labels)))]
        if empty:
            self.arrays.append(numpy.stack([picture for picture, _ in empty]))
            labels += [label for _, label in empty]
        self.starts = numpy.cumsum([0] + [len(array) for array in self.arrays])
        self.targets = targets(labels)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: numpy.ndarray) -> numpy.ndarray:
        """uint8 (len(rows), SIDE, SIDE, 3)."""
        folders = numpy.searchsorted(self.starts, rows, "right") - 1
        return numpy.stack([self.arrays[folder][row - self.starts[folder]] for folder, row in zip(folders, rows)])


def without_subjects(seed: int) -> tuple[numpy.ndarray, dict]:
    """A picture of setting and time alone, and its label."""
    scene = dataclasses.replace(sample(seed, "train"), subjects=(), relation=None)
    return draw(scene), {"subjects": [], "setting": scene.setting, "time": scene.time, "relation": None}


def loss_of(answers: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """The sum of all questions' losses; each is a mean over the pictures that have an answer."""
    total = nn.functional.binary_cross_entropy_with_logits(answers["pairs"], wanted["pairs"], reduction="none")
    total = total.sum(1).mean()
    for name in CLASSES:
        if (wanted[name] != NOT_ASKED).any():
            total = total + nn.functional.cross_entropy(answers[name], wanted[name], label_smoothing=0.02)
    return total


def train(drawings: Drawings, most: int, minutes: float, seed: int, batch: int, device: torch.device) -> Judge:
    """Trains on `most` pictures, or for a time if that is over before; the rate rises over the first twentieth and falls
    along a cosine."""
    torch.manual_seed(seed)
    random, order = torch.Generator().manual_seed(seed), numpy.random.default_rng(seed)
    judge = Judge().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.02)
    queue, step, began, said = numpy.empty(0, int), 0, time.monotonic(), 0.0
    while (done := max(step * batch / most, (time.monotonic() - began) / (60 * minutes))) < 1:
        if len(queue) < batch:
            queue = numpy.concatenate([queue, order.permutation(len(drawings))])
        rows, queue = queue[:batch], queue[batch:]
        optimizer.param_groups[0]["lr"] = 3e-3 * min(done / 0.05 + 0.01, 0.5 + 0.5 * math.cos(math.pi * done))
        with torch.autocast(device.type, torch.bfloat16):
            answers = judge(disturb(tensor_of(drawings[rows], device), random))
        loss = loss_of(answers, {name: values[rows].to(device) for name, values in drawings.targets.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step == 10 or time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"{(said - began) / 60:.1f} min, {step * batch} pictures, loss {loss.item():.3f}", flush=True)
    return judge.eval()


def save(judge: Judge, path: Path) -> None:
    """Weights, and the names of its classes: those of another world are refused."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in judge.state_dict().items()}
    save_file(tensors, path, {"classes": json.dumps(CLASSES)})


def load(path: Path, device: torch.device | str = "cpu") -> Judge:
    """A judge that `save` wrote."""
    with safe_open(path, "pt") as file:
        classes = json.loads((file.metadata() or {}).get("classes", "null"))
        if classes != json.loads(json.dumps(CLASSES)):
            raise SystemExit(f"{path}: a judge of other classes than this world's; train it again")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    judge = Judge()
    judge.load_state_dict(tensors)
    return judge.to(device, memory_format=torch.channels_last).eval()


@torch.inference_mode()
def ask(judge: Judge, pictures: Tensor) -> dict[str, Tensor]:
    """Probabilities of every class, on the CPU: (N, classes); `pairs` each by itself, (N, PAIRS).

    pictures: (N, 3, H, W) in 0..1, of any size.
    """
    scale = SIDE / min(pictures.shape[2:])
    if scale != 1:
        size = [round(scale * side) for side in pictures.shape[2:]]
        pictures = nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)
    answers = judge(pictures)
    found = {name: answers[name].softmax(1).cpu() for name in CLASSES}
    return {**found, "pairs": answers["pairs"].sigmoid().cpu()}


def seen_subjects(pairs: Tensor) -> dict[str, str]:
    """Of one picture's pairs (PAIRS): each kind that is there more likely than not, with its likeliest colour."""
    table = pairs.view(len(SUBJECTS), len(COLOURS))
    best, colour = table.max(1)
    return {kind: COLOURS[colour[i]] for i, kind in enumerate(SUBJECTS) if best[i] > 0.5}


def check(judge: Judge, drawings: Drawings, device: torch.device, vae=None) -> dict:
    """Right answers of each question, and which classes are taken for which."""
    seen = {name: [] for name in (*CLASSES, "pairs")}
    for start in range(0, len(drawings), 64):
        pictures = tensor_of(drawings[numpy.arange(start, min(start + 64, len(drawings)))], device)
        if vae is not None:
            with torch.inference_mode():
                latents = vae.encode(2 * pictures - 1).latent_dist.mode()
                pictures = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
        for name, values in ask(judge, pictures).items():
            seen[name].append(values)
    report = {}
    for name, classes in CLASSES.items():
        wanted, said = drawings.targets[name], torch.cat(seen[name]).argmax(1)
        asked = wanted != NOT_ASKED
        report[name] = tally(classes, wanted[asked], said[asked])
    pairs, wanted = torch.cat(seen["pairs"]), drawings.targets["pairs"]
    for count, name in ((1, "pair"), (2, "both pairs")):
        rows = (drawings.targets["count"] == count).nonzero().flatten()
        right = sum(seen_subjects(pairs[row]) == seen_subjects(wanted[row]) for row in rows)
        report[name] = {"accuracy": right / max(len(rows), 1), "asked": len(rows)}
    return report


def tally(classes: tuple[str, ...], wanted: Tensor, said: Tensor) -> dict:
    """The share of right answers, in all and of each class, and what wrong answers were given at least twice."""
    table = torch.zeros(len(classes), len(classes), dtype=torch.long)
    table.index_put_((wanted, said), torch.ones_like(wanted), accumulate=True)
    wrong = [
        (int(table[i, j]), classes[i], classes[j])
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and table[i, j] > 1
    ]
    each = {name: int(table[i, i]) / max(int(table[i].sum()), 1) for i, name in enumerate(classes)}
    return {
        "accuracy": int(table.diagonal().sum()) / max(len(wanted), 1),
        "asked": len(wanted),
        "classes": each,
        "confusions": [{"times": n, "is": a, "taken_for": b} for n, a, b in sorted(wrong, reverse=True)],
    }


def as_table(report: dict) -> str:
    """A report as a Markdown table, with each question's weakest class and commonest mistakes."""
    lines = ["| question | right | asked | weakest class | commonest mistakes |", "|---|---|---|---|---|"]
    for name, row in report.items():
        each = row.get("classes", {})
        weakest = min(each, key=each.get) if each else ""
        worst = f"{weakest} {each[weakest]:.1%}" if each else ""
        mistakes = ", ".join(f"{c['is']} as {c['taken_for']} {c['times']}x" for c in row.get("confusions", [])[:4])
        lines.append(f"| {name} | {row['accuracy']:.2%} | {row['asked']} | {worst} | {mistakes} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "check"):
        command = commands.add_parser(name)
        command.add_argument("--check", type=Path, nargs="+", required=True, metavar="DIR", help="held-out drawings")
        command.add_argument("--report", type=Path, metavar="FILE.json", help="also write the tables as JSON")
        command.add_argument("--vae", type=Path, help="also check pictures that have been through this autoencoder")
        if name == "train":
            command.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR")
            command.add_argument("--pictures", type=int, default=100_000, help="to learn from, counting repetitions")
            command.add_argument("--minutes", type=float, default=math.inf, help="to stop after, with fewer pictures")
            command.add_argument("--batch", type=int, default=64)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.safetensors")
        else:
            command.add_argument("judge", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held_out = Drawings(args.check, empty_seed=2_000_000_000)
    if args.command == "train":
        drawings = Drawings(args.data, empty_seed=1_000_000_000)
        judge = train(drawings, args.pictures, args.minutes, args.seed, args.batch, device)
        save(judge, args.output)
    else:
        judge = load(args.judge, device)
    reports = {"drawings": check(judge, held_out, device)}
    if args.vae:
        from cub_model import load_vae

        reports["through the autoencoder"] = check(judge, held_out, device, load_vae(args.vae).to(device))
    for name, report in reports.items():
        print(f"\n{name}\n\n{as_table(report)}")
    if args.report:
        args.report.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
