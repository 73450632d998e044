"""Prompts to score a model by: what is asked for in words, and what must then be seen. The same each time.

    python prompts.py --set unseen          lists one set
    python prompts.py                       says how many each set has

The sets:
    single  every kind in every colour once, in a setting, half of them at a time of day
    two     two subjects, each in its colour, that stand to each other in one of the relations
    unseen  every combination of kind, colour and setting that cub's training pictures never contain
    plain   as people type in a hurry: "dragon", "red dragon", "dragon, city"
"""

import argparse
import itertools
import random
from dataclasses import dataclass

from world import COLOURS, RELATIONS, SETTINGS, SUBJECTS, TIMES, held_out
from world.vocabulary import SKY

# How this file says it: one plain wording each, so that scores are of the model and not of its vocabulary.
PLACES = {
    "hill": "on a hill",
    "sea": "by the sea",
    "forest": "in a forest",
    "city": "in a city",
    "desert": "in the desert",
    "snow": "in the snow",
    "space": "in space",
}
PLACES_ALOFT = {
    "hill": "over a hill",
    "sea": "over the sea",
    "forest": "over a forest",
    "city": "over a city",
    "desert": "over the desert",
    "snow": "over the snow",
    "space": "in space",
}
HOURS = {"day": "by day", "sunset": "at sunset", "night": "at night", "dawn": "at dawn"}

# For a sheet to look at: prompts that a visitor might type.
SHOWCASE = (
    "a red dragon over a city at night",
    "a honey badger under a red star",
    "a honey badger in the desert by day",
    "a green dragon flying over a hill",
    "a person in blue on a hill at sunset",
    "a yellow star above a white house in the snow",
    "a purple fish in the sea at dawn",
    "a red boat at sea by day",
    "a black cat beside a pink flower in a forest",
    "a tall orange building in the city at night",
    "a big blue balloon over the sea at sunset",
    "a white honey badger in space",
    "a person in red in front of a green tree",
    "a pink moon over a forest at night",
    "dragon",
    "a small house in the snow",
)


@dataclass(frozen=True)
class Prompt:
    """What is asked for. None: not asked for, and so not scored."""

    text: str
    kinds: tuple[str, ...]
    colours: tuple[str | None, ...]
    setting: str | None = None
    time: str | None = None
    relation: str | None = None


def subject(kind: str, colour: str | None) -> str:
    """Such as "an orange cat"; people wear their colour."""
    if kind == "person" and colour:
        return f"a person in {colour}"
    words = f"{colour} {kind}" if colour else kind
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def place(kinds: tuple[str, ...], setting: str) -> str:
    """Where it is; something of the sky alone is over it."""
    aloft = len(kinds) == 1 and kinds[0] in (*SKY, "dragon")
    return (PLACES_ALOFT if aloft else PLACES)[setting]


def prompt(names, setting: str, time: str | None, relation: str | None = None) -> Prompt:
    """A prompt that names everything. names: kind and colour of each subject. In space no time is named."""
    kinds, colours = zip(*names)
    time = None if setting == "space" else time
    subjects = f" {relation} ".join(subject(*name) for name in names)
    words = (subjects, place(kinds, setting), HOURS.get(time, ""))
    return Prompt(" ".join(word for word in words if word), kinds, colours, setting, time, relation)


def _cycle(names, rng: random.Random):
    """Names without end, each as often as the others, in random order."""
    while True:
        yield from rng.sample(names, len(names))


def _seen_setting(names, settings) -> str:
    """The next setting in which training pictures may hold all these subjects."""
    return next(setting for setting in settings if not any(held_out(*name, setting) for name in names))


def single() -> list[Prompt]:
    """Every kind in every colour."""
    rng = random.Random("ratel prompts 1 single")
    settings, times = _cycle(SETTINGS, rng), _cycle((None, None, None, None, *TIMES), rng)
    names = rng.sample(list(itertools.product(SUBJECTS, COLOURS)), len(SUBJECTS) * len(COLOURS))
    return [prompt([name], _seen_setting([name], settings), next(times)) for name in names]


def two() -> list[Prompt]:
    """Two subjects of different colours, each kind four times first, each relation equally often."""
    rng = random.Random("ratel prompts 1 two")
    settings, relations = _cycle(SETTINGS, rng), _cycle(RELATIONS, rng)
    colours = _cycle(COLOURS, rng)
    seconds, times = _cycle(SUBJECTS, rng), _cycle((None, None, None, None, *TIMES), rng)
    made = []
    for kind in 4 * SUBJECTS:
        other = next(name for name in seconds if name != kind)
        one = next(colours)
        names = [(kind, one), (other, next(colour for colour in colours if colour != one))]
        made.append(prompt(names, _seen_setting(names, settings), next(times), next(relations)))
    return made


def unseen() -> list[Prompt]:
    """Every combination that is held out."""
    rng = random.Random("ratel prompts 1 unseen")
    times = _cycle((None, None, None, None, *TIMES), rng)
    combinations = itertools.product(SUBJECTS, COLOURS, SETTINGS)
    kept = [(k, c, s) for k, c, s in combinations if held_out(k, c, s)]
    return [prompt([(k, c)], s, next(times)) for k, c, s in rng.sample(kept, len(kept))]


def plain() -> list[Prompt]:
    """Few words: the kind; with its article; with a colour; with a setting."""
    rng = random.Random("ratel prompts 1 plain")
    colours, settings = _cycle(COLOURS, rng), _cycle(SETTINGS, rng)
    made = []
    for kind in SUBJECTS:
        colour, setting = next(colours), next(settings)
        made.append(Prompt(kind, (kind,), (None,)))
        made.append(Prompt(subject(kind, None), (kind,), (None,)))
        made.append(Prompt(f"{colour} {kind}", (kind,), (colour,)))
        made.append(Prompt(f"{kind}, {setting}", (kind,), (None,), setting))
    return rng.sample(made, len(made))


SETS = {"single": single, "two": two, "unseen": unseen, "plain": plain}


def main() -> None:
    """Lists a set, or counts them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS)
    args = parser.parse_args()
    if args.set:
        for one in SETS[args.set]():
            print(one.text)
    else:
        for name, make in SETS.items():
            print(f"{name}: {len(make())} prompts")


if __name__ == "__main__":
    main()
