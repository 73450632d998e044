"""A small classifier that says what a picture of the world shows, to score what a model draws.

    python judge.py train --data DIR [DIR ...] --check DIR [DIR ...] [--minutes 15] -o judge.safetensors
    python judge.py check judge.safetensors --check DIR [DIR ...] [--vae FOLDER] [--report FILE.json]

The folders are those of data.py. It learns from every split, also the one whose combinations are kept from cub, so that
none is strange to it; --check takes folders of other seeds. With --vae the pictures checked have been through an
autoencoder, which softens them as it softens cub's.

It looks at pictures of any size scaled to 64 pixels along the shorter side, since what they show is asked, not how
finely. What it answers:
    count      0, 1 or 2 subjects
    kind       the only subject's
    colour     the only subject's
    setting
    time       (in space it is always night and isn't asked for)
    pairs      for each kind and colour, whether such a subject is there: of two subjects, which has which colour
    roles      for each kind, whether such a subject is the upper one of two, the lower one ...: their relation
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

SIDE = 64
CLASSES = {
    "count": ("0", "1", "2"),
    "kind": SUBJECTS,
    "colour": COLOURS,
    "setting": SETTINGS,
    "time": TIMES,
}
ROLES = ("upper", "lower", "beside", "front", "back")
RELATION_ROLES = {
    "above": ("upper", "lower"),
    "under": ("lower", "upper"),
    "beside": ("beside", "beside"),
    "in front of": ("front", "back"),
}
EMPTY_SHARE = 0.04
NOT_ASKED = -100  # torch's cross entropy leaves these out


def targets(labels: list[dict]) -> dict[str, Tensor]:
    """labels.json as class numbers (N), NOT_ASKED where a question has no answer; `pairs` and `roles` as 0 or 1
    (N, kinds, colours or roles)."""
    found = {name: torch.full((len(labels),), NOT_ASKED) for name in CLASSES}
    pairs = torch.zeros(len(labels), len(SUBJECTS), len(COLOURS))
    roles = torch.zeros(len(labels), len(SUBJECTS), len(ROLES))
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
            for subject, role in zip(subjects, RELATION_ROLES[label["relation"]], strict=True):
                roles[row, SUBJECTS.index(subject["kind"]), ROLES.index(role)] = 1
        for subject in subjects:
            pairs[row, SUBJECTS.index(subject["kind"]), COLOURS.index(subject["colour"])] = 1
    return {**found, "pairs": pairs, "roles": roles}


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

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)):
        super().__init__()
        a, b, c = widths
        self.body = nn.Sequential(halve(3, a), halve(a, b), Block(b), halve(b, c), Block(c), Block(c))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(2 * c, len(CLASSES[name])) for name in CLASSES}
        )
        self.pairs = nn.Conv2d(c, len(SUBJECTS) * len(COLOURS), 1)
        self.roles = nn.Conv2d(c, len(SUBJECTS) * len(ROLES), 1)
        for head in (self.pairs, self.roles):
            nn.init.constant_(head.bias, -4.0)  # most are not there

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) in 0..1 to logits of every question."""
        found = self.body((pictures - 0.5) / 0.25).float()
        with torch.autocast(pictures.device.type, enabled=False):
            pooled = torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1)
            answers = {name: head(pooled) for name, head in self.heads.items()}
            for name, head in (("pairs", self.pairs), ("roles", self.roles)):
                # somewhere in the picture: the smooth maximum over places
                places = head(found).flatten(2)
                most = places.logsumexp(2) - math.log(places.shape[2])
                answers[name] = most.unflatten(1, (len(SUBJECTS), -1))
        return answers


def tensor_of(pictures: numpy.ndarray, device) -> Tensor:
    """uint8 (N, H, W, 3) to (N, 3, H, W) in 0..1."""
    tensor = torch.from_numpy(numpy.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)
    return tensor.float().div(255).contiguous(memory_format=torch.channels_last)


def shrunk(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) with the shorter side scaled to SIDE."""
    scale = SIDE / min(pictures.shape[2:])
    size = [round(scale * side) for side in pictures.shape[2:]]
    return nn.functional.interpolate(pictures, size, mode="area")


def disturb(pictures: Tensor, random: torch.Generator) -> Tensor:
    """What an autoencoder and a sampler do to a picture (N, 3, SIDE, SIDE), to each in a measure of its own: mirrored,
    moved by up to a pixel, scaled a little, softened, grainy, blotchy, brighter, of another contrast, tinted."""
    count, device = len(pictures), pictures.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=random)).to(device)

    place = torch.zeros(count, 2, 3, device=device)
    place[:, 0, 0] = uniform(0.97, 1.03) * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    place[:, 1, 1] = uniform(0.97, 1.03)
    place[:, :, 2] = uniform(-1, 1, 2) * 2 / SIDE
    grid = nn.functional.affine_grid(place, list(pictures.shape), align_corners=False)
    moved = nn.functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    soft = int(SIDE / 2 * (1 + torch.rand((), generator=random)))
    softened = nn.functional.interpolate(moved, (soft, soft), mode="bilinear", antialias=True)
    softened = nn.functional.interpolate(softened, moved.shape[2:], mode="bicubic")
    moved = torch.where(uniform(0, 1, 1, 1, 1) < 0.6, softened, moved)
    grain = torch.randn(pictures.shape, generator=random).to(device)
    blotches = torch.randn(count, 3, SIDE // 8, SIDE // 8, generator=random).to(device)
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
            if images.shape[1] != images.shape[2]:
                raise SystemExit(f"{folder}: pictures are {images.shape[1:]}; the judge learns from squares")
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
        self.labels, self.targets = labels, targets(labels)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: numpy.ndarray) -> numpy.ndarray:
        """uint8 (len(rows), H, H, 3); all folders of one size."""
        folders = numpy.searchsorted(self.starts, rows, "right") - 1
        return numpy.stack([self.arrays[folder][row - self.starts[folder]] for folder, row in zip(folders, rows)])


def without_subjects(seed: int) -> tuple[numpy.ndarray, dict]:
    """A picture of setting and time alone, and its label."""
    scene = dataclasses.replace(sample(seed, "train"), subjects=(), relation=None)
    return draw(scene), {"subjects": [], "setting": scene.setting, "time": scene.time, "relation": None}


def loss_of(answers: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """The sum of all questions' losses; each is a mean over the pictures that have an answer."""
    total = torch.zeros(())
    for name in ("pairs", "roles"):
        each = nn.functional.binary_cross_entropy_with_logits(answers[name], wanted[name], reduction="none")
        total = total + each.sum((1, 2)).mean()
    for name in CLASSES:
        if (wanted[name] != NOT_ASKED).any():
            total = total + nn.functional.cross_entropy(answers[name], wanted[name], label_smoothing=0.02)
    return total


def train(drawings: Drawings, most: int, minutes: float, seed: int, batch: int, device: torch.device) -> Judge:
    """Trains on `most` pictures, or for a time if that is over before; the rate rises at first, then falls along a
    cosine."""
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
            answers = judge(disturb(shrunk(tensor_of(drawings[rows], device)), random))
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
    save_file(tensors, path, {"classes": json.dumps({**CLASSES, "role": ROLES})})


def load(path: Path, device: torch.device | str = "cpu") -> Judge:
    """A judge that `save` wrote."""
    with safe_open(path, "pt") as file:
        classes = json.loads((file.metadata() or {}).get("classes", "null"))
        if classes != json.loads(json.dumps({**CLASSES, "role": ROLES})):
            raise SystemExit(f"{path}: a judge of other classes than this world's; train it again")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    judge = Judge()
    judge.load_state_dict(tensors)
    return judge.to(device, memory_format=torch.channels_last).eval()


@torch.inference_mode()
def ask(judge: Judge, pictures: Tensor) -> dict[str, Tensor]:
    """Probabilities of every class, on the CPU: (N, classes); those of `pairs` and `roles` each by itself.

    pictures: (N, 3, H, W) in 0..1, of any size.
    """
    answers = judge(shrunk(pictures))
    found = {name: answers[name].softmax(1).cpu() for name in CLASSES}
    return {**found, **{name: answers[name].sigmoid().cpu() for name in ("pairs", "roles")}}


def seen_subjects(pairs: Tensor) -> dict[str, str]:
    """Of one picture's pairs: each kind that is there more likely than not, with its likeliest colour."""
    best, colour = pairs.max(1)
    return {kind: COLOURS[colour[i]] for i, kind in enumerate(SUBJECTS) if best[i] > 0.5}


def seen_relation(roles: Tensor, kinds: tuple[str, str]) -> str:
    """Of one picture's roles: how the first of these kinds most likely stands to the second."""
    first, second = (roles[SUBJECTS.index(kind)] for kind in kinds)
    likely = {
        relation: float(first[ROLES.index(one)] * second[ROLES.index(other)])
        for relation, (one, other) in RELATION_ROLES.items()
    }
    return max(likely, key=likely.get)


def check(judge: Judge, drawings: Drawings, device: torch.device, vae=None) -> dict:
    """Right answers of each question, and which classes are taken for which."""
    seen = {name: [] for name in (*CLASSES, "pairs", "roles")}
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
    pairs, roles, wanted = torch.cat(seen["pairs"]), torch.cat(seen["roles"]), drawings.targets["pairs"]
    for count, name in ((1, "pair"), (2, "both pairs")):
        rows = (drawings.targets["count"] == count).nonzero().flatten().tolist()
        right = sum(seen_subjects(pairs[row]) == seen_subjects(wanted[row]) for row in rows)
        report[name] = {"accuracy": right / max(len(rows), 1), "asked": len(rows)}
    kinds = [tuple(subject["kind"] for subject in drawings.labels[row]["subjects"]) for row in rows]
    said = [RELATIONS.index(seen_relation(roles[row], pair)) for row, pair in zip(rows, kinds, strict=True)]
    true = [RELATIONS.index(drawings.labels[row]["relation"]) for row in rows]
    report["relation"] = tally(RELATIONS, torch.tensor(true), torch.tensor(said))
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
