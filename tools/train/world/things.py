"""Those that don't live, and plants: each function gives a subject's parts, from back to front."""

from __future__ import annotations

import math

from .shapes import Part, blob, box, crescent, curve, oval, polygon, star


def building(subject, rng):
    """A tall house with rows of windows; its roof is flat, stepped or pointed."""
    wide = rng.uniform(0.20, 0.25)
    top = {"flat": -0.96, "stepped": -0.78, "pointed": -0.78}[subject.pose]
    parts = []
    if subject.pose == "stepped":
        parts += [Part(box(-0.6 * wide, -0.98, 0.6 * wide, -0.70), "main"), Part(box(0.15 * wide, -0.98, 0.6 * wide, -0.70), "dark")]
    elif subject.pose == "pointed":
        parts += [Part(polygon([(-wide, top + 0.01), (0, -1.02), (wide, top + 0.01)]), "dark")]
    parts += [Part(box(-wide, top, wide, 0), "main"), Part(box(0.45 * wide, top, wide, 0), "dark")]
    rows = 5 if top < -0.9 else 4
    for row in range(rows):
        y = top + 0.09 + row * 0.155
        for x in (-0.62, -0.02, 0.66):
            parts.append(Part(box((x - 0.18) * wide, y, (x + 0.18) * wide, y + 0.085), "window"))
    return parts + [Part(box(-0.42 * wide, -0.12, -0.02, 0), "ink")]


def house(subject, rng):
    """Broad walls, a gabled roof, a chimney."""
    parts = [Part(box(0.16, -0.92, 0.27, -0.55), "dark")]
    parts += [Part(box(-0.40, -0.52, 0.40, 0), "main")]
    parts += [Part(polygon([(-0.52, -0.48), (0, -0.96), (0.52, -0.48)]), "dark")]
    parts += [Part(box(-0.09, -0.30, 0.09, 0, 0.03), "wood")]
    return parts + [Part(box(x - 0.075, -0.36, x + 0.075, -0.20), "window") for x in (-0.25, 0.25)]


def star_shape(subject, rng):
    """A star with five points and a lighter heart."""
    return [Part(star(0, -0.47, 0.53, 0.52), "main"), Part(star(0, -0.47, 0.29, 0.52), "light")]


def moon(subject, rng):
    """A crescent with two craters."""
    return [Part(crescent(0, -0.5, 0.5), "main"), Part(oval(-0.32, -0.52, 0.07), "dark"), Part(oval(-0.18, -0.22, 0.05), "dark")]


def balloon(subject, rng):
    """A hot air balloon with a stripe and a basket."""
    envelope = blob([(0, -1.0), (-0.25, -0.93), (-0.36, -0.70), (-0.27, -0.45), (-0.09, -0.27), (0.09, -0.27), (0.27, -0.45),
                     (0.36, -0.70), (0.25, -0.93)])
    stripe = blob([(0, -1.0), (-0.10, -0.90), (-0.13, -0.66), (-0.05, -0.28), (0.05, -0.28), (0.13, -0.66), (0.10, -0.90)])
    ropes = [Part(curve([(x, -0.28), (0.8 * x, -0.14)]), "wood", 0.025) for x in (-0.08, 0.08)]
    return [*ropes, Part(envelope, "main"), Part(stripe, "light"), Part(box(-0.09, -0.16, 0.09, 0, 0.03), "basket")]


def tree(subject, rng):
    """A round crown on a trunk, or a pine in three storeys."""
    parts = [Part(box(-0.06, -0.38, 0.06, 0), "wood")]
    if subject.pose == "pine":
        for top, bottom, wide in ((-0.62, -0.16, 0.36), (-0.82, -0.40, 0.29), (-1.0, -0.62, 0.21)):
            parts += [Part(polygon([(0, top), (wide, bottom), (-wide, bottom)]), "main"),
                      Part(polygon([(0, top), (wide, bottom), (0.2 * wide, bottom)]), "dark")]
        return parts
    crown = [(0, -1.0), (-0.22, -0.92), (-0.38, -0.70), (-0.36, -0.46), (-0.16, -0.30), (0.16, -0.30), (0.36, -0.46), (0.38, -0.70), (0.22, -0.92)]
    shade = [(0.22, -0.90), (0.38, -0.70), (0.36, -0.46), (0.16, -0.30), (-0.08, -0.31), (0.18, -0.50), (0.27, -0.70)]
    return parts + [Part(blob(crown), "main"), Part(blob(shade), "dark"), Part(oval(-0.14, -0.76, 0.10, 0.08), "light")]


def boat(subject, rng):
    """Two sails over a hull."""
    hull = blob([(-0.50, -0.30), (0, -0.27), (0.50, -0.30), (0.44, -0.14), (0.32, 0.0), (-0.32, 0.0), (-0.44, -0.14)])
    parts = [Part(curve([(0, -0.98), (0, -0.25)]), "wood", 0.05)]
    parts += [Part(polygon([(0.05, -0.92), (0.42, -0.38), (0.05, -0.36)]), "sail")]
    parts += [Part(polygon([(-0.05, -0.86), (-0.33, -0.38), (-0.05, -0.36)]), "light")]
    return parts + [Part(hull, "main"), Part(curve([(-0.40, -0.19), (0, -0.165), (0.40, -0.19)]), "dark", 0.05)]


def mountain(subject, rng):
    """A peak with snow on it, and a lower one beside it."""
    lean = rng.uniform(-0.06, 0.06)
    low = [Part(polygon([(0.12, 0), (0.40, -0.56), (0.72, 0)]), "main"), Part(polygon([(0.40, -0.56), (0.72, 0), (0.46, 0)]), "dark")]
    high = [Part(polygon([(-0.66, 0), (lean, -1.0), (0.50, 0)]), "main"), Part(polygon([(lean, -1.0), (0.50, 0), (0.10, 0)]), "dark")]
    cap = polygon([(lean, -1.0), (lean + 0.15, -0.70), (lean + 0.06, -0.76), (lean - 0.01, -0.66), (lean - 0.10, -0.75), (lean - 0.20, -0.70)])
    return [*low, *high, Part(cap, "snowcap")]


def flower(subject, rng):
    """Petals about a golden middle, on a stem with two leaves."""
    parts = [Part(curve([(0, -0.60), (0.02, -0.30), (0, -0.02)]), "stem", 0.07)]
    parts += [Part(blob([(0, -0.12), (s * 0.18, -0.32), (s * 0.32, -0.34), (s * 0.22, -0.16)]), "leaf") for s in (-1, 1)]
    turn = rng.uniform(0, 1)
    for i in range(6):
        angle = 2 * math.pi * (i + turn) / 6
        parts.append(Part(oval(0.20 * math.cos(angle), -0.67 + 0.20 * math.sin(angle), 0.135), "main"))
    return parts + [Part(oval(0, -0.67, 0.13), "gold")]
