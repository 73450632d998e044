"""Has Ratel draw held-out prompts at fixed seeds, and a judge say how often the pictures show what was asked.

    python score.py --judge judge.safetensors --model DIR -o FOLDER [--sets single unseen two plain] [--limit 40]

The folder then holds the pictures, score.json (every picture and what was seen in it), score.md (tables), and a sheet
of each set on which the captions of wrong pictures are red. Seeds are not chosen: picture number i of a set has seed i.
What a prompt does not name isn't scored. Run again, it goes on where it was interrupted.

Of two subjects, `subject` means that both are there, and `colour` that each has its own.
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

import judge as judging
import pictures
from contact_sheet import opened, sheet
from prompts import SETS, Prompt
from world import COLOURS, SETTINGS, SUBJECTS

CRITERIA = ("subject", "colour", "setting", "all three", "count", "time", "relation")
GOALS = (
    ("single", "subject", 0.95),
    ("single", "colour", 0.90),
    ("single", "setting", 0.90),
    ("unseen", "all three", 0.80),
)


def seen_in(answers: dict[str, Tensor], row: int, kinds: tuple[str, ...]) -> dict:
    """What the judge sees in a picture, in words. kinds: those asked for, which tells how to ask."""
    said = {name: classes[int(answers[name][row].argmax())] for name, classes in judging.CLASSES.items()}
    found = {"count": int(said["count"]), "setting": said["setting"], "time": said["time"]}
    if len(kinds) == 1:
        there = {said["kind"]: said["colour"]} if found["count"] else {}
        return {**found, "subjects": there}
    relation = judging.seen_relation(answers["roles"][row], kinds)
    return {**found, "subjects": judging.seen_subjects(answers["pairs"][row]), "relation": relation}


def marks(prompt: Prompt, seen: dict) -> dict[str, bool]:
    """Whether what was asked for was seen, by each criterion that the prompt names."""
    subjects = seen["subjects"]
    right = {"subject": all(kind in subjects for kind in prompt.kinds), "count": seen["count"] == len(prompt.kinds)}
    if all(prompt.colours):
        # whether a single subject of a wrong kind has the right colour is told by its own head
        colours = subjects.values() if len(prompt.kinds) == 1 else [subjects.get(kind) for kind in prompt.kinds]
        right["colour"] = tuple(colours) == prompt.colours
    if prompt.setting:
        right["setting"] = seen["setting"] == prompt.setting
    if prompt.time:
        right["time"] = seen["time"] == prompt.time
    if prompt.relation:
        right["relation"] = right["subject"] and seen["relation"] == prompt.relation
    if all(prompt.colours) and prompt.setting:
        right["all three"] = right["subject"] and right["colour"] and right["setting"]
    return right


def interval(right: int, asked: int) -> tuple[float, float]:
    """Where the true share lies with 95% confidence (Wilson's interval)."""
    z, share = 1.96, right / asked
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    reach = z / (1 + z * z / asked) * (share * (1 - share) / asked + z * z / (4 * asked * asked)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


def summary(rows: list[dict]) -> dict:
    """How many of these pictures are right, by each criterion that any of them is asked for."""
    found = {}
    for criterion in CRITERIA:
        marked = [row["right"][criterion] for row in rows if criterion in row["right"]]
        if marked:
            low, high = interval(sum(marked), len(marked))
            found[criterion] = {
                "right": sum(marked), "asked": len(marked), "share": sum(marked) / len(marked), "low": low, "high": high
            }
    return found


def by_name(rows: list[dict], names: tuple[str, ...], criterion: str, asked) -> dict:
    """The criterion's share for each name, over pictures of which `asked(row)` is that name."""
    found = {}
    for name in names:
        marked = [row["right"][criterion] for row in rows if criterion in row["right"] and asked(row) == name]
        if marked:
            found[name] = {"right": sum(marked), "asked": len(marked), "share": sum(marked) / len(marked)}
    return found


def tables(rows: list[dict]) -> dict:
    """All counts: of each set; of each kind and colour, over pictures of one subject; of each setting; mistakes."""
    alone = [row for row in rows if len(row["prompt"]["kinds"]) == 1]
    sets = {name: summary([row for row in rows if row["set"] == name]) for name in SETS}
    taken = Counter()
    for row in alone:
        for kind, colour in row["seen"]["subjects"].items() or [("nothing", None)]:
            if kind != row["prompt"]["kinds"][0]:
                taken[row["prompt"]["kinds"][0], kind] += 1
            elif row["right"].get("colour") is False:
                taken[row["prompt"]["colours"][0], colour] += 1
        if row["right"].get("setting") is False:
            taken[row["prompt"]["setting"], row["seen"]["setting"]] += 1
    return {
        "sets": {name: found for name, found in sets.items() if found},
        "kinds": by_name(alone, SUBJECTS, "subject", lambda row: row["prompt"]["kinds"][0]),
        "colours": by_name(alone, COLOURS, "colour", lambda row: row["prompt"]["colours"][0]),
        "settings": by_name(rows, SETTINGS, "setting", lambda row: row["prompt"]["setting"]),
        "mistakes": [{"times": n, "asked": a, "seen": b} for (a, b), n in taken.most_common(20)],
    }


def markdown(found: dict) -> str:
    """The tables for a model card."""
    criteria = [name for name in CRITERIA if any(name in row for row in found["sets"].values())]
    lines = ["| prompts | pictures | " + " | ".join(criteria) + " |", "|---" * (len(criteria) + 2) + "|"]
    for name, row in found["sets"].items():
        cells = [
            f"{row[c]['share']:.1%} ({row[c]['low']:.0%} to {row[c]['high']:.0%})" if c in row else "" for c in criteria
        ]
        lines.append(f"| {name} | {row['count']['asked']} | " + " | ".join(cells) + " |")
    lines += ["", "In brackets: where the true share lies with 95% confidence.", ""]
    for name, criterion in (("kinds", "subject"), ("colours", "colour"), ("settings", "setting")):
        row = found[name]
        lines += [f"| {criterion} | " + " | ".join(row) + " |", "|---" * (len(row) + 1) + "|"]
        lines += ["| right | " + " | ".join(f"{cell['right']}/{cell['asked']}" for cell in row.values()) + " |", ""]
    mistakes = ", ".join(f"{m['asked']} as {m['seen']} {m['times']}x" for m in found["mistakes"])
    lines += [f"Mistakes, commonest first: {mistakes or 'none'}.", ""]
    for name, criterion, goal in GOALS:
        if criterion in found["sets"].get(name, {}):
            share = found["sets"][name][criterion]["share"]
            lines.append(f"- {name}, {criterion}: {share:.1%}, {'reaches' if share >= goal else 'misses'} {goal:.0%}")
    return "\n".join(lines) + "\n"


def score(judge: judging.Judge, prompts: list[Prompt], requests: list[dict], paths: list[Path]) -> list[dict]:
    """What is seen in each picture of a set, and whether it is right."""
    rows = []
    for prompt, request, path in zip(prompts, requests, paths, strict=True):
        with Image.open(path) as image:
            picture = numpy.array(image.convert("RGB"))
        answers = judging.ask(judge, judging.tensor_of(picture[None], "cpu"))
        seen = seen_in(answers, 0, prompt.kinds)
        name = path.parent.name
        about = {"set": name, "file": f"{name}/{path.name}", "seed": request["seed"], "prompt": asdict(prompt)}
        rows.append({**about, "seen": seen, "right": marks(prompt, seen)})
    return rows


def caption(row: dict) -> str:
    """The prompt and seed, and what was seen in their place where that is wrong."""
    seen, right = row["seen"], row["right"]
    wrong = [name for name in CRITERIA if right.get(name) is False and name != "all three"]
    said = {
        "subject": ", ".join(seen["subjects"]) or "nothing",
        "count": str(seen["count"]),
        "colour": ", ".join(seen["subjects"].values()),
        "setting": seen["setting"],
        "time": seen["time"],
        "relation": seen.get("relation", ""),
    }
    text = f"{row['prompt']['text']} (seed {row['seed']})"
    return text + (": " + "; ".join(said[name] for name in wrong) if wrong else "")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N prompts of each set")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="pictures of each prompt")
    pictures.add_arguments(parser)
    args = parser.parse_args()
    judge, rows = judging.load(args.judge), []
    for name in args.sets:
        prompts = args.repeat * SETS[name]()[: args.limit]
        requests = [{"prompt": prompt.text, "seed": seed} for seed, prompt in enumerate(prompts, 1)]
        paths = pictures.draw_all(args, requests, args.output / name)
        found = score(judge, prompts, requests, paths)
        wrong = tuple(not all(row["right"].values()) for row in found)
        page = sheet([opened(path) for path in paths], [caption(row) for row in found], 8, wrong)
        page.save(args.output / f"{name}.png")
        rows += found
    counted = tables(rows)
    text = json.dumps({**counted, "pictures": rows}, indent=1)
    (args.output / "score.json").write_text(text + "\n", encoding="utf-8")
    (args.output / "score.md").write_text(markdown(counted), encoding="utf-8")
    print(markdown(counted))


if __name__ == "__main__":
    main()
