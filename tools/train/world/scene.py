"""What is to be seen in a picture: chosen by a seed, before anything is drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .vocabulary import COLOURS, NATURAL, POSES, RELATIONS, SETTINGS, SKY, SUBJECTS, TIMES, held_out

# How far a subject reaches to its side, in its own heights: it is kept inside the picture by that.
HALF_WIDTH = {"honey badger": 0.66, "dragon": 0.72, "mountain": 0.62, "fish": 0.58}
HEIGHTS = {"small": (0.38, 0.46), "medium": (0.50, 0.62), "large": (0.68, 0.80)}


@dataclass(frozen=True)
class Subject:
    """One thing of the picture. `x` is a fraction of the width, `foot` of the height: where it stands.

    `height` is in units of the picture's shorter side; `stretch` widens it. `look` seeds the small details.
    All look to the right, as in a field guide: a small model that sees both draws creatures with two heads.
    """

    kind: str
    colour: str
    size: str
    pose: str
    x: float
    foot: float
    height: float
    stretch: float
    aloft: bool
    cloud: bool
    look: int


@dataclass(frozen=True)
class Scene:
    """One or two subjects, where and when. `relation` says how the first stands to the second."""

    subjects: tuple[Subject, ...]
    setting: str
    time: str
    relation: str | None
    look: int


def sample(seed: int, split: str = "train") -> Scene:
    """The scene of a seed.

    `train` and `test` hold no combination that `held_out` keeps back; `unseen` does in its first subject.
    The splits' scenes are independent of each other.
    """
    if split not in ("train", "test", "unseen"):
        raise ValueError(f"there is no split {split!r}; there are train, test and unseen")
    rng = random.Random(f"ratel world 1 {split} {seed}")
    setting = rng.choice(SETTINGS)
    time = "night" if setting == "space" else rng.choice(TIMES)
    relation = rng.choice(RELATIONS) if rng.random() < 0.4 else None
    count = 2 if relation else 1
    kinds = rng.sample(SUBJECTS, count)
    names = []
    for index, kind in enumerate(kinds):
        unseen = split == "unseen" and index == 0
        colours = [colour for colour in COLOURS if held_out(kind, colour, setting) == unseen]
        while not colours:
            kind = rng.choice([other for other in SUBJECTS if other not in kinds])
            colours = [colour for colour in COLOURS if held_out(kind, colour, setting) == unseen]
        natural = [colour for colour in NATURAL[kind] if colour in colours]
        colour = rng.choice(natural) if natural and rng.random() < 0.3 else rng.choice(colours)
        names.append((kind, colour))
    return Scene(_place(rng, names, setting, relation), setting, time, relation, rng.randrange(1 << 30))


def _place(rng, names, setting, relation):
    """Sizes and places of the subjects, so that the relation is to be seen."""
    if relation is None:
        size = rng.choice(("small", "medium", "medium", "large"))
        kind = names[0][0]
        aloft = kind in SKY or (kind == "dragon" and rng.random() < 0.6)
        margin = {"small": 0.22, "medium": 0.34, "large": 0.44}[size]
        return (_subject(rng, names[0], size, HEIGHTS[size], rng.uniform(margin, 1 - margin), aloft, setting, "alone"),)
    first, second = names
    if relation in ("above", "under"):
        upper, lower = (first, second) if relation == "above" else (second, first)
        x = rng.uniform(0.36, 0.64)
        up = _subject(rng, upper, "medium", (0.34, 0.40), x + rng.uniform(-0.08, 0.08), True, setting, "upper")
        down = _subject(rng, lower, "medium", (0.36, 0.44), x + rng.uniform(-0.08, 0.08), False, setting, "lower")
        return (up, down) if relation == "above" else (down, up)
    if relation == "beside":
        left, right = rng.uniform(0.25, 0.29), rng.uniform(0.71, 0.75)
        if rng.random() < 0.5:
            left, right = right, left
        one = _subject(rng, first, "medium", (0.40, 0.48), left, first[0] in SKY, setting, "beside")
        two = _subject(rng, second, "medium", (0.40, 0.48), right, second[0] in SKY, setting, "beside")
        return (one, two)
    x = rng.uniform(0.36, 0.64)
    side = rng.choice((-1, 1))
    front = _subject(rng, first, "small", (0.36, 0.44), x + side * rng.uniform(0.10, 0.18), False, setting, "front")
    back = _subject(rng, second, "large", (0.62, 0.74), x - side * rng.uniform(0.06, 0.12), False, setting, "back")
    return (front, back)


# Where the feet are, as fractions of the picture's height.
_FEET = {"alone": (0.86, 0.92), "lower": (0.90, 0.94), "beside": (0.86, 0.92), "front": (0.92, 0.95), "back": (0.84, 0.88)}


def _subject(rng, name, size, heights, x, aloft, setting, role):
    kind, colour = name
    height = rng.uniform(*heights)
    if kind in ("honey badger", "fish"):  # long and low
        height *= 0.9
    poses = POSES.get(kind, ("",))
    pose = rng.choice(poses)
    if kind == "dragon":
        pose = "flying" if aloft else "sitting"
    if role == "upper":
        foot = rng.uniform(0.08, 0.11) + height
    elif aloft:
        foot = 0.5 * height + rng.uniform(0.34, 0.52)
    elif kind in SKY:  # something of the sky that is to be low
        foot = rng.uniform(*_FEET[role]) - 0.05
    else:
        foot = rng.uniform(*_FEET[role])
    cloud = role == "upper" and kind not in SKY and kind != "dragon"
    stretch = rng.uniform(0.9, 1.12)
    reach = min(0.5, HALF_WIDTH.get(kind, 0.5) * stretch * height + 0.02)
    x = min(max(x, reach), 1 - reach)
    return Subject(kind, colour, size, pose, x, foot, height, stretch, aloft, cloud, rng.randrange(1 << 30))
