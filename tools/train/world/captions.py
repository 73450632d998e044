"""Captions of a scene: the same thing said in many ways, with more or less of it."""

from __future__ import annotations

import random

from .scene import Scene, Subject
from .vocabulary import (COLOUR_WORDS, ENDINGS, KIND_WORDS, OPENINGS, POSE_WORDS, RELATION_WORDS, SETTING_WORDS,
                         SIZE_WORDS, TIME_WORDS)


def captions(scene: Scene, seed: int, count: int) -> list[str]:
    """`count` captions of the scene, each with wording, order and detail of its own."""
    return [caption(scene, seed * 1000 + number) for number in range(count)]


def caption(scene: Scene, seed: int, full: bool = False) -> str:
    """One caption. With `full`, every colour, the setting, the relation and (but in space) the time are named."""
    rng = random.Random(f"ratel caption 1 {seed}")
    if not full and rng.random() < 0.08:
        return _bare(rng, scene)
    subjects = [_phrase(rng, subject, full, alone=len(scene.subjects) == 1) for subject in scene.subjects]
    text = subjects[0]
    if scene.relation:
        text = f"{subjects[0]} {_word(rng, RELATION_WORDS[scene.relation])} {subjects[1]}"
    setting = time = ""
    if full or rng.random() < 0.8:
        aloft = scene.subjects[0].aloft and len(scene.subjects) == 1
        words = SETTING_WORDS[scene.setting][1 if aloft and rng.random() < 0.7 else 0]
        setting = _word(rng, words)
    if scene.setting != "space" and (full or rng.random() < 0.6):
        time = _word(rng, TIME_WORDS[scene.time])
    return _join(rng, text, setting, time)


def _join(rng, text, setting, time):
    """The parts in one of several orders."""
    order = rng.random()
    place = " ".join(part for part in (setting, time) if part)
    if not place or order < 0.65:
        text = " ".join(part for part in (text, place) if part)
    elif order < 0.75:
        text = ", ".join(part for part in (text, setting, time) if part)
    elif order < 0.87 and time:
        text = f"{time}, {text} {setting}".rstrip()
    else:
        text = f"{place}, {text}"
    if rng.random() < 0.08:
        text = f"{rng.choice(OPENINGS)} {text}"
    if rng.random() < 0.06:
        text = f"{text}, {rng.choice(ENDINGS)}"
    return text


def _bare(rng, scene):
    """As people type when they are in a hurry: names, and perhaps a colour, without articles."""
    words = []
    for subject in scene.subjects:
        colour = _word(rng, COLOUR_WORDS.get(subject.colour, (subject.colour,)))
        kind = _word(rng, KIND_WORDS[subject.kind])
        words.append(f"{colour} {kind}" if rng.random() < 0.6 else kind)
    if rng.random() < 0.4:
        words.append(scene.setting)
    if scene.setting != "space" and rng.random() < 0.3:
        words.append(scene.time)
    return rng.choice((", ", " ")).join(words)


def _phrase(rng, subject: Subject, full: bool, alone: bool) -> str:
    """A subject with its article, as "a small red dragon flying"."""
    kind = _word(rng, KIND_WORDS[subject.kind])
    colour = _word(rng, COLOUR_WORDS.get(subject.colour, (subject.colour,)))
    if not (full or rng.random() < 0.78):
        colour = ""
    size = rng.choice(SIZE_WORDS[subject.size]) if alone and rng.random() < 0.4 else ""
    tail = ""
    if subject.kind == "person" and colour and rng.random() < 0.6:
        tail, colour = rng.choice((f"in {colour}", f"wearing {colour}", f"in a {colour} coat")), ""
    pose = ""
    if subject.pose in POSE_WORDS and rng.random() < 0.3:
        pose = rng.choice(POSE_WORDS[subject.pose])
    before = pose if pose and not tail and rng.random() < 0.4 else ""
    after = pose if pose and not before else ""
    words = " ".join(part for part in (size, before, colour, kind, tail, after) if part)
    article = "the" if rng.random() < 0.06 else ("an" if words[0] in "aeiou" else "a")
    return f"{article} {words}"


def _word(rng, words):
    """One of the words, the first half of the time."""
    return words[0] if rng.random() < 0.5 else rng.choice(words)
