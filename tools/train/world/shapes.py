"""Paths and parts: what the subjects and settings are cut from.

A subject's own coordinates: x to the right with 0 in its middle, y downwards with its feet at 0 and its head near -1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import skia


@dataclass(frozen=True)
class Part:
    """A piece of paper: a filled path, or a line of some width with round ends. `tone` names its colour."""

    path: skia.Path
    tone: str
    width: float | None = None


def polygon(points) -> skia.Path:
    """A closed path with straight sides."""
    path = skia.Path()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    path.close()
    return path


def blob(points) -> skia.Path:
    """A smooth closed curve through the points (Catmull and Rom's spline)."""
    path = skia.Path()
    count = len(points)
    path.moveTo(*points[0])
    for i in range(count):
        _segment(path, points[i - 1], points[i], points[(i + 1) % count], points[(i + 2) % count])
    path.close()
    return path


def curve(points) -> skia.Path:
    """A smooth open curve through the points, to be drawn as a line."""
    path = skia.Path()
    path.moveTo(*points[0])
    ends = [points[0], *points, points[-1]]
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:]):
        _segment(path, a, b, c, d)
    return path


def _segment(path, before, start, end, after):
    path.cubicTo(start[0] + (end[0] - before[0]) / 6, start[1] + (end[1] - before[1]) / 6,
                 end[0] - (after[0] - start[0]) / 6, end[1] - (after[1] - start[1]) / 6, *end)


def oval(x, y, rx, ry=None) -> skia.Path:
    """An ellipse about a point."""
    ry = rx if ry is None else ry
    return skia.Path().addOval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry))


def box(left, top, right, bottom, radius=0.0) -> skia.Path:
    """A rectangle, with round corners if wanted."""
    return skia.Path().addRoundRect(skia.Rect.MakeLTRB(left, top, right, bottom), radius, radius)


def star(x, y, radius, inner=0.5, points=5) -> skia.Path:
    """A star with its first point upwards."""
    corners = []
    for i in range(2 * points):
        r = radius if i % 2 == 0 else radius * inner
        angle = math.pi * i / points - math.pi / 2
        corners.append((x + r * math.cos(angle), y + r * math.sin(angle)))
    return polygon(corners)


def crescent(x, y, radius, bite=0.55) -> skia.Path:
    """A waxing moon: a disc less a disc that is moved to its right by `bite` radii."""
    return skia.Op(oval(x, y, radius), oval(x + bite * radius, y - 0.18 * radius, 0.82 * radius), skia.kDifference_PathOp)
