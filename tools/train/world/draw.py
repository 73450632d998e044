"""Draws a scene: sky and land, then the subjects as pieces of paper with a pale border and a soft shadow."""

from __future__ import annotations

import random

import numpy
import skia

from . import creatures, things
from .backgrounds import backdrop, foreground, horizon
from .palette import FIXED, lit, tones
from .scene import Scene, Subject
from .shapes import blob

PARTS = {"honey badger": creatures.honey_badger, "person": creatures.person, "building": things.building,
         "star": things.star_shape, "dragon": creatures.dragon, "tree": things.tree, "house": things.house,
         "moon": things.moon, "boat": things.boat, "mountain": things.mountain, "fish": creatures.fish,
         "flower": things.flower, "cat": creatures.cat, "balloon": things.balloon}

BORDER = 0.013  # of the picture's shorter side
SHARE = 0.24  # of the light's colour that subjects take, so that red stays red at night


def draw(scene: Scene, width: int = 128, height: int = 128) -> numpy.ndarray:
    """The scene as uint8 (height, width, 3) in sRGB; the same pixels each time."""
    pixels = numpy.zeros((height, width, 4), numpy.uint8)
    surface = skia.Surface(pixels, colorType=skia.kRGBA_8888_ColorType)
    canvas = surface.getCanvas()
    unit = min(width, height)
    canvas.scale(unit, unit)
    across, down = width / unit, height / unit
    rng = random.Random(scene.look)
    backdrop(canvas, scene, across, down, rng)
    for subject in reversed(scene.subjects):
        _subject(canvas, subject, scene, across, down)
    foreground(canvas, scene, across, down, rng)
    return pixels[..., :3].copy()


def paint(colour, alpha=1.0, width=None) -> skia.Paint:
    """A smooth paint of a colour; with a width it draws lines with round ends."""
    ink = skia.Paint(AntiAlias=True, Color4f=skia.Color4f(*colour, alpha))
    if width is not None:
        ink.setStyle(skia.Paint.kStroke_Style)
        ink.setStrokeWidth(width)
        ink.setStrokeCap(skia.Paint.kRound_Cap)
        ink.setStrokeJoin(skia.Paint.kRound_Join)
    return ink


def _subject(canvas, subject: Subject, scene: Scene, across, down):
    rng = random.Random(subject.look)
    parts = PARTS[subject.kind](subject, rng)
    foot = _foot(subject, scene)
    canvas.save()
    canvas.translate(subject.x * across, foot * down)
    if not subject.aloft and foot > horizon(scene):
        _ground(canvas, subject, scene)
    if subject.cloud:
        _cloud(canvas, subject, scene)
    scale = subject.height
    canvas.scale(scale * subject.stretch, scale)
    if subject.aloft:
        canvas.rotate(rng.uniform(-6, 6))
    border = BORDER / scale
    _outline(canvas, parts, (0.05, 0.03, 0.12), 0.16, 2 * border, (0.9 * border, 1.3 * border))
    _outline(canvas, parts, lit(FIXED["border"], scene.time, SHARE), 1.0, 2 * border, (0, 0))
    colours = {**FIXED, **tones(subject.colour), "window": FIXED["lamp" if scene.time in ("night", "sunset") else "pane"]}
    for part in parts:
        glows = part.tone == "window"
        colour = colours[part.tone] if glows else lit(colours[part.tone], scene.time, SHARE)
        canvas.drawPath(part.path, paint(colour, 1.0, part.width))
    canvas.restore()


def _outline(canvas, parts, colour, alpha, width, offset):
    """The border of all parts together; see-through colours are laid on once, by a layer of their own."""
    canvas.save()
    canvas.translate(*offset)
    if alpha < 1:
        canvas.saveLayerAlpha(None, int(255 * alpha))
    for part in parts:
        if part.width is None:
            canvas.drawPath(part.path, paint(colour))
            canvas.drawPath(part.path, paint(colour, 1.0, width))
        else:
            canvas.drawPath(part.path, paint(colour, 1.0, part.width + width))
    if alpha < 1:
        canvas.restore()
    canvas.restore()


def _foot(subject, scene):
    """Boats and fish lie in the water of a sea."""
    if scene.setting == "sea" and subject.kind in ("boat", "fish") and not subject.aloft and not subject.cloud:
        return subject.foot - 0.06
    return subject.foot


def _ground(canvas, subject, scene):
    """What a subject stands on where there is no ground: an islet in the sea; ripples about a boat."""
    if scene.setting != "sea":
        return
    wide = 0.5 * subject.height * (1.25 if subject.kind in ("honey badger", "mountain", "house", "dragon") else 0.95)
    if subject.kind in ("boat", "fish"):
        canvas.drawOval(skia.Rect.MakeLTRB(-1.15 * wide, -0.03, 1.15 * wide, 0.03), paint(lit((0.78, 0.91, 0.95), scene.time), 0.8))
        return
    canvas.drawOval(skia.Rect.MakeLTRB(-wide - 0.07, -0.035, wide + 0.07, 0.055), paint(lit((0.78, 0.91, 0.95), scene.time), 0.8))
    canvas.drawOval(skia.Rect.MakeLTRB(-wide - 0.03, -0.05, wide + 0.03, 0.035), paint(lit((0.93, 0.82, 0.56), scene.time)))


def _cloud(canvas, subject, scene):
    """What carries those who can't fly."""
    wide = max(0.17, 0.48 * subject.height)
    path = blob([(-wide, 0.005), (-0.75 * wide, -0.045), (-0.3 * wide, -0.04), (0.1 * wide, -0.06), (0.6 * wide, -0.045),
                 (wide, 0.0), (0.7 * wide, 0.045), (-0.7 * wide, 0.045)])
    canvas.drawPath(path, paint(lit(FIXED["cloud"], scene.time, 0.6)))
