"""The settings: sky, land and what stands far away, in a few layers of paper."""

from __future__ import annotations

import math

import skia

from .palette import lit, mix, rgb, sky
from .shapes import blob, box, oval, polygon, star


def horizon(scene) -> float:
    """Where land begins, as a fraction of the height."""
    return {"sea": 0.60, "desert": 0.68, "space": 0.80}.get(scene.setting, 0.70)


def backdrop(canvas, scene, across, down, rng):
    """Everything behind the subjects. `across` and `down` are the picture's sides in units of the shorter."""
    _sky(canvas, scene, across, down, rng)
    {"hill": _hill, "sea": _sea, "forest": _forest, "city": _city, "desert": _desert, "snow": _snow,
     "space": _space}[scene.setting](canvas, scene, across, down, rng)


def foreground(canvas, scene, across, down, rng):
    """What lies before the subjects: falling snow."""
    if scene.setting == "snow":
        for _ in range(int(14 * across * down)):
            _fill(canvas, oval(rng.uniform(0, across), rng.uniform(0, down), 0.011), lit((1, 1, 1), scene.time, 0.4), 0.9)


def _fill(canvas, path, colour, alpha=1.0):
    canvas.drawPath(path, skia.Paint(AntiAlias=True, Color4f=skia.Color4f(*colour, alpha)))


def _sky(canvas, scene, across, down, rng):
    space = scene.setting == "space"
    colours = [skia.Color4f(*colour, 1.0).toColor() for colour in sky(scene.time, space)]
    bottom = down if space else down * horizon(scene)
    shader = skia.GradientShader.MakeLinear([(0, 0), (0, bottom)], colours)
    canvas.drawRect(skia.Rect.MakeWH(across, down), skia.Paint(Shader=shader))
    if scene.time == "night":
        for _ in range(int((26 if space else 14) * across * down)):
            radius = rng.choice((0.006, 0.008, 0.011))
            _fill(canvas, oval(rng.uniform(0, across), rng.uniform(0, 0.95 * bottom), radius), rgb("fff3cf"), 0.95)
    elif scene.time in ("sunset", "dawn"):
        colour = rgb("ffd27a") if scene.time == "sunset" else rgb("fff3d6")
        x, y = rng.uniform(0.15, 0.85) * across, (horizon(scene) - rng.uniform(0.02, 0.12)) * down
        _fill(canvas, oval(x, y, 0.15), colour, 0.35)
        _fill(canvas, oval(x, y, 0.105), colour)
    if not space:
        for _ in range(rng.randrange(1, 4)):
            _cloud(canvas, scene, rng.uniform(0.05, 0.95) * across, rng.uniform(0.08, 0.42) * down, rng.uniform(0.10, 0.17))


def _cloud(canvas, scene, x, y, wide):
    white = {"day": (1, 1, 1), "sunset": rgb("f8c3a0"), "night": rgb("5a6cab"), "dawn": rgb("fff0f0")}[scene.time]
    path = blob([(x - wide, y), (x - 0.6 * wide, y - 0.30 * wide), (x - 0.1 * wide, y - 0.42 * wide), (x + 0.5 * wide, y - 0.30 * wide),
                 (x + wide, y), (x + 0.5 * wide, y + 0.12 * wide), (x - 0.5 * wide, y + 0.12 * wide)])
    _fill(canvas, path, white, 0.85)


def _land(canvas, scene, across, down, level, swell, phase, colour):
    """A layer of rolling land: everything below a wave about `level`."""
    points = [(0.0, down)]
    steps = 24
    for i in range(steps + 1):
        x = across * i / steps
        points.append((x, down * level + swell * math.sin(2.6 * x + phase) + 0.4 * swell * math.sin(6.1 * x + 2 * phase)))
    points.append((across, down))
    _fill(canvas, polygon(points), lit(colour, scene.time))


def _hill(canvas, scene, across, down, rng):
    _land(canvas, scene, across, down, 0.62, 0.055, rng.uniform(0, 6), rgb("a8cf8e"))
    _land(canvas, scene, across, down, 0.72, 0.045, rng.uniform(0, 6), rgb("86bd62"))
    _land(canvas, scene, across, down, 0.83, 0.02, rng.uniform(0, 6), rgb("67a74b"))


def _sea(canvas, scene, across, down, rng):
    top = down * horizon(scene)
    for i, text in enumerate(("7cc4dd", "4fa5cf", "3a8bc0", "2f76ae")):
        level = top + i * (down - top) / 4
        if i == 0:
            _fill(canvas, box(0, level, across, down), lit(rgb(text), scene.time))
        else:
            _waves(canvas, scene, across, down, level, rng.uniform(0, 6), rgb(text))


def _waves(canvas, scene, across, down, level, phase, colour):
    points = [(0.0, down)]
    steps = int(40 * across)
    points += [(across * i / steps, level + 0.013 * abs(math.sin(9 * across * i / steps + phase))) for i in range(steps + 1)]
    points.append((across, down))
    _fill(canvas, polygon(points), lit(colour, scene.time))


def _pine(canvas, scene, x, foot, tall, colour):
    wide = 0.30 * tall
    for top, bottom, share in ((0.55, 0.0, 1.0), (0.80, 0.32, 0.8), (1.0, 0.60, 0.58)):
        _fill(canvas, polygon([(x, foot - top * tall), (x + share * wide, foot - bottom * tall), (x - share * wide, foot - bottom * tall)]),
              lit(colour, scene.time))


def _forest(canvas, scene, across, down, rng):
    for level, tall, text in ((0.74, 0.52, "5f9a78"), (0.80, 0.42, "2f6b4c")):
        _fill(canvas, box(0, down * (level - 0.06), across, down), lit(rgb(text), scene.time))
        x = rng.uniform(-0.08, 0.02)
        while x < across + 0.1:
            _pine(canvas, scene, x, down * level, tall * rng.uniform(0.8, 1.15), rgb(text))
            x += rng.uniform(0.13, 0.19)
    _land(canvas, scene, across, down, 0.80, 0.015, rng.uniform(0, 6), rgb("4c7a3d"))


def _city(canvas, scene, across, down, rng):
    ground = 0.82 * down
    lamps = scene.time in ("night", "sunset")
    for low, high, text, windows in ((0.34, 0.52, "b7bccb", False), (0.18, 0.36, "8b92a8", True)):
        x = rng.uniform(-0.08, 0.0)
        while x < across:
            wide, tall = rng.uniform(0.12, 0.19), rng.uniform(low, high) * down
            _fill(canvas, box(x, ground - tall, x + wide, ground), lit(rgb(text), scene.time, 0.9))
            if windows:
                _windows(canvas, x, ground - tall, wide, tall, rng, rgb("ffdf8c") if lamps else rgb("d5dbe6"))
            x += wide + rng.choice((0.0, 0.015, 0.03))
    _fill(canvas, box(0, ground, across, down), lit(rgb("6d6f7d"), scene.time))
    x = rng.uniform(-0.1, 0.05)
    while x < across:
        _fill(canvas, box(x, ground + 0.085, x + 0.11, ground + 0.105), lit(rgb("e9e4d4"), scene.time))
        x += 0.2


def _windows(canvas, x, top, wide, tall, rng, colour):
    y = top + 0.03
    while y < top + tall - 0.04:
        for share in (0.28, 0.72):
            if rng.random() < 0.75:
                _fill(canvas, box(x + share * wide - 0.015, y, x + share * wide + 0.015, y + 0.026), colour)
        y += 0.058


def _desert(canvas, scene, across, down, rng):
    _land(canvas, scene, across, down, 0.64, 0.05, rng.uniform(0, 6), rgb("efcf93"))
    _land(canvas, scene, across, down, 0.74, 0.04, rng.uniform(0, 6), rgb("e6b96c"))
    for _ in range(rng.randrange(1, 3)):
        _cactus(canvas, scene, rng.uniform(0.06, 0.94) * across, down * rng.uniform(0.72, 0.78), rng.uniform(0.16, 0.24))
    _land(canvas, scene, across, down, 0.84, 0.02, rng.uniform(0, 6), rgb("d9a452"))


def _cactus(canvas, scene, x, foot, tall):
    ink = skia.Paint(AntiAlias=True, Color4f=skia.Color4f(*lit(rgb("4e8f5a"), scene.time), 1.0), Style=skia.Paint.kStroke_Style,
                     StrokeCap=skia.Paint.kRound_Cap, StrokeWidth=0.2 * tall)
    canvas.drawLine(x, foot, x, foot - tall, ink)
    ink.setStrokeWidth(0.14 * tall)
    for side, low, high in ((-1, 0.38, 0.72), (1, 0.5, 0.86)):
        canvas.drawLine(x, foot - low * tall, x + side * 0.3 * tall, foot - low * tall, ink)
        canvas.drawLine(x + side * 0.3 * tall, foot - low * tall, x + side * 0.3 * tall, foot - high * tall, ink)


def _snow(canvas, scene, across, down, rng):
    _land(canvas, scene, across, down, 0.62, 0.05, rng.uniform(0, 6), rgb("cfe0ee"))
    for _ in range(rng.randrange(2, 5)):
        x, foot, tall = rng.uniform(0.02, 0.98) * across, down * rng.uniform(0.70, 0.76), rng.uniform(0.20, 0.30)
        _pine(canvas, scene, x, foot, tall, rgb("7fa3b3"))
        _fill(canvas, polygon([(x, foot - tall), (x + 0.075 * tall, foot - 0.78 * tall), (x - 0.075 * tall, foot - 0.78 * tall)]),
              lit(rgb("f4f9fd"), scene.time))
    _land(canvas, scene, across, down, 0.74, 0.035, rng.uniform(0, 6), rgb("e2edf5"))
    _land(canvas, scene, across, down, 0.85, 0.02, rng.uniform(0, 6), rgb("f4f8fc"))


def _space(canvas, scene, across, down, rng):
    x, y, radius = rng.uniform(0.1, 0.9) * across, rng.uniform(0.10, 0.35) * down, rng.uniform(0.06, 0.10)
    colour = rgb(rng.choice(("d98c6a", "6aa7c9", "b583c9", "8fbf8a")))
    ring = skia.Paint(AntiAlias=True, Color4f=skia.Color4f(*mix(colour, (1, 1, 1), 0.5), 1.0), Style=skia.Paint.kStroke_Style, StrokeWidth=0.018)
    _fill(canvas, oval(x, y, radius), colour)
    canvas.drawOval(skia.Rect.MakeLTRB(x - 1.8 * radius, y - 0.35 * radius, x + 1.8 * radius, y + 0.35 * radius), ring)
    _fill(canvas, oval(across / 2, down * 0.80 + 1.6 * across, 1.6 * across), rgb("6f6a86"))
    for _ in range(int(4 * across)):
        cx, cy, r = rng.uniform(0.05, 0.95) * across, down * rng.uniform(0.88, 0.97), rng.uniform(0.03, 0.06)
        _fill(canvas, oval(cx, cy, r, 0.45 * r), rgb("56516d"))
