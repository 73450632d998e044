"""Those that live: each function gives a subject's parts, from back to front."""

from __future__ import annotations

from .shapes import Part, blob, box, curve, oval, polygon


def honey_badger(subject, rng):
    """From the side: a low, long body, dark below, with the pale mantle from head to tail."""
    stride = 0.07 if subject.pose == "walking" else 0.0
    legs = [(0.24, stride, "dark"), (-0.26, -stride, "dark"), (0.10, -stride, "main"), (-0.40, stride, "main")]
    parts = [Part(curve([(-0.44, -0.44), (-0.56, -0.56), (-0.60, -0.72)]), "main", 0.13)]
    parts += [Part(curve([(x, -0.28), (x + 0.02 + dx, -0.06)]), tone, 0.15) for x, dx, tone in legs]
    body = [(-0.50, -0.40), (-0.43, -0.62), (-0.10, -0.68), (0.20, -0.64), (0.40, -0.72), (0.55, -0.60), (0.64, -0.44),
            (0.50, -0.35), (0.30, -0.26), (0.0, -0.18), (-0.30, -0.19), (-0.48, -0.27)]
    mantle = [(-0.53, -0.46), (-0.44, -0.66), (-0.10, -0.73), (0.20, -0.69), (0.40, -0.76), (0.54, -0.66),
              (0.44, -0.585), (0.18, -0.53), (-0.12, -0.53), (-0.36, -0.46)]
    parts += [Part(blob(body), "main"), Part(blob(mantle), "mantle")]
    parts += [Part(oval(x + 0.05 + dx, -0.035, 0.055, 0.03), "mantle") for x, dx, tone in legs if tone == "main"]
    parts += [Part(oval(0.36, -0.60, 0.05), "dark"), Part(oval(0.51, -0.545, 0.034), "border"),
              Part(oval(0.518, -0.54, 0.020), "ink"), Part(oval(0.635, -0.475, 0.042, 0.036), "ink")]
    return parts


def person(subject, rng):
    """A traveller in a coat."""
    skin, hair = f"skin{rng.randrange(4)}", f"hair{rng.randrange(4)}"
    stride = 0.13 if subject.pose == "walking" else 0.06
    legs = [Part(curve([(side * 0.05, -0.30), (side * stride, -0.03)]), "trousers", 0.10) for side in (-1, 1)]
    far = Part(curve([(-0.11, -0.64), (-0.20, -0.50), (-0.20, -0.38)]), "dark", 0.095)
    if subject.pose == "waving":
        near = [Part(curve([(0.11, -0.64), (0.25, -0.72), (0.29, -0.88)]), "dark", 0.095), Part(oval(0.295, -0.92, 0.055), skin)]
    else:
        near = [Part(curve([(0.11, -0.64), (0.20, -0.50), (0.20, -0.38)]), "dark", 0.095), Part(oval(0.20, -0.35, 0.05), skin)]
    coat = blob([(0, -0.72), (-0.13, -0.68), (-0.18, -0.45), (-0.23, -0.22), (0, -0.20), (0.23, -0.22), (0.18, -0.45), (0.13, -0.68)])
    parts = [*legs, far, Part(oval(-0.20, -0.35, 0.05), skin), Part(coat, "main"), *near]
    parts += [Part(curve([(0, -0.64), (0, -0.24)]), "light", 0.03)]
    if rng.random() < 0.4:  # long hair
        parts.append(Part(blob([(0, -1.0), (-0.17, -0.92), (-0.18, -0.70), (0.18, -0.70), (0.17, -0.92)]), hair))
    parts += [Part(oval(0, -0.84, 0.135, 0.14), skin)]
    parts += [Part(blob([(0.0, -1.0), (-0.15, -0.94), (-0.145, -0.85), (-0.02, -0.90), (0.13, -0.85), (0.15, -0.94)]), hair)]
    parts += [Part(oval(x, -0.825, 0.02), "ink") for x in (-0.03, 0.075)]
    return parts


def cat(subject, rng):
    """Sitting towards us, or standing with its tail up."""
    if subject.pose == "sitting":
        parts = [Part(curve([(0.14, -0.08), (0.36, -0.10), (0.40, -0.30), (0.30, -0.42)]), "dark", 0.10)]
        body = [(0, -0.60), (-0.17, -0.48), (-0.25, -0.20), (-0.21, -0.02), (0.21, -0.02), (0.25, -0.20), (0.17, -0.48)]
        parts += [Part(blob(body), "main"), Part(oval(0, -0.30, 0.10, 0.16), "light")]
        parts += [Part(oval(x, -0.045, 0.085, 0.05), "light") for x in (-0.09, 0.09)]
        return parts + _cat_head(0.0, -0.72)
    parts = [Part(curve([(-0.34, -0.38), (-0.48, -0.52), (-0.46, -0.76)]), "dark", 0.09)]
    parts += [Part(curve([(x, -0.30), (x, -0.06)]), tone, 0.11) for x, tone in
              ((-0.18, "dark"), (0.26, "dark"), (-0.32, "main"), (0.12, "main"))]
    body = [(-0.42, -0.40), (-0.30, -0.53), (0.10, -0.50), (0.34, -0.52), (0.36, -0.32), (0.10, -0.24), (-0.32, -0.22)]
    parts += [Part(blob(body), "main")]
    return parts + _cat_head(0.32, -0.66)


def _cat_head(x, y):
    ears = [polygon([(x + s * 0.20, y - 0.02), (x + s * 0.19, y - 0.27), (x + s * 0.04, y - 0.13)]) for s in (-1, 1)]
    inner = [polygon([(x + s * 0.165, y - 0.09), (x + s * 0.16, y - 0.20), (x + s * 0.09, y - 0.13)]) for s in (-1, 1)]
    head = blob([(x, y - 0.16), (x - 0.19, y - 0.09), (x - 0.21, y + 0.05), (x, y + 0.16), (x + 0.21, y + 0.05), (x + 0.19, y - 0.09)])
    parts = [Part(ear, "main") for ear in ears] + [Part(ear, "blush") for ear in inner] + [Part(head, "main")]
    parts += [Part(oval(x, y + 0.07, 0.09, 0.065), "light"), Part(oval(x, y + 0.045, 0.03, 0.02), "blush")]
    parts += [Part(oval(x + s * 0.095, y - 0.02, 0.045), "border") for s in (-1, 1)]
    return parts + [Part(oval(x + s * 0.09, y - 0.02, 0.026, 0.034), "ink") for s in (-1, 1)]


def fish(subject, rng):
    """From the side, with a tail fin like a heart."""
    tail = blob([(-0.24, -0.42), (-0.50, -0.68), (-0.58, -0.60), (-0.47, -0.42), (-0.58, -0.24), (-0.50, -0.16)])
    back = blob([(-0.12, -0.60), (0.02, -0.80), (0.18, -0.76), (0.26, -0.60)])
    body = blob([(0.56, -0.40), (0.38, -0.60), (0.05, -0.70), (-0.22, -0.54), (-0.32, -0.42), (-0.22, -0.30), (0.05, -0.14), (0.38, -0.22)])
    parts = [Part(tail, "dark"), Part(back, "dark"), Part(body, "main")]
    parts += [Part(curve([(x, -0.62 + abs(x) * 0.2), (x + 0.07, -0.42), (x, -0.22 - abs(x) * 0.2)]), "light", 0.065) for x in (-0.12, 0.08)]
    parts += [Part(blob([(0.10, -0.36), (-0.06, -0.30), (-0.02, -0.18), (0.12, -0.26)]), "dark")]
    return parts + [Part(oval(0.37, -0.47, 0.07), "border"), Part(oval(0.385, -0.465, 0.04), "ink")]


def dragon(subject, rng):
    """With horns, wings like a bat's and an arrow at its tail."""
    return _flying_dragon() if subject.pose == "flying" else _sitting_dragon()


def _wing(x, y, width, height, lean):
    """A bat's wing from its shoulder: an arm to the tip, then three scallops back."""
    tip, a, b = (x + lean, y - height), (x - 0.62 * width, y - 0.78 * height), (x - width, y - 0.34 * height)
    path = polygon([(x + 0.07, y)])
    path.reset()
    path.moveTo(x + 0.08, y)
    path.quadTo(x + lean + 0.07, y - 0.55 * height, *tip)
    path.quadTo(x - 0.30 * width + lean * 0.5, y - 0.74 * height, *a)
    path.quadTo(x - 0.60 * width, y - 0.46 * height, *b)
    path.quadTo(x - 0.55 * width, y - 0.16 * height, x - 0.16, y + 0.06)
    path.close()
    return path


def _dragon_head(x, y):
    horns = [polygon([(x - 0.02 + d, y - 0.09), (x - 0.17 + d, y - 0.22), (x - 0.09 + d, y - 0.04)]) for d in (0.0, 0.085)]
    head = blob([(x - 0.12, y - 0.02), (x - 0.05, y - 0.11), (x + 0.09, y - 0.10), (x + 0.25, y - 0.03), (x + 0.30, y + 0.04),
                 (x + 0.23, y + 0.10), (x + 0.02, y + 0.11), (x - 0.11, y + 0.08)])
    parts = [Part(horn, "cream") for horn in horns] + [Part(head, "main")]
    parts += [Part(blob([(x + 0.06, y + 0.045), (x + 0.27, y + 0.05), (x + 0.22, y + 0.10), (x + 0.06, y + 0.10)]), "light")]
    return parts + [Part(oval(x + 0.055, y - 0.025, 0.04), "border"), Part(oval(x + 0.065, y - 0.022, 0.023), "ink"),
                    Part(oval(x + 0.235, y + 0.01, 0.018), "ink")]


def _spikes(points):
    return [Part(polygon([(x - 0.05, y + 0.03), (x - 0.02, y - 0.10), (x + 0.05, y + 0.02)]), "dark") for x, y in points]


def _sitting_dragon():
    parts = [Part(_wing(-0.02, -0.52, 0.56, 0.46, -0.16), "dark")]
    parts += [Part(curve([(-0.12, -0.14), (-0.34, -0.07), (-0.50, -0.16), (-0.52, -0.30)]), "main", 0.12)]
    parts += [Part(polygon([(-0.52, -0.47), (-0.64, -0.28), (-0.42, -0.28)]), "dark")]
    parts += _spikes([(0.02, -0.72), (-0.03, -0.60), (-0.12, -0.46)])
    body = [(-0.22, -0.06), (-0.26, -0.28), (-0.12, -0.48), (0.06, -0.58), (0.20, -0.50), (0.25, -0.28), (0.20, -0.08), (0.02, -0.03)]
    parts += [Part(curve([(0.06, -0.46), (0.10, -0.66), (0.19, -0.80)]), "main", 0.19), Part(blob(body), "main")]
    parts += [Part(blob([(0.11, -0.54), (0.22, -0.44), (0.25, -0.22), (0.16, -0.08), (0.10, -0.26)]), "light")]
    parts += [Part(oval(-0.08, -0.17, 0.15, 0.14), "main"), Part(oval(-0.04, -0.04, 0.13, 0.05), "dark"),
              Part(oval(0.20, -0.04, 0.10, 0.045), "dark"), Part(curve([(0.18, -0.38), (0.31, -0.30)]), "dark", 0.07)]
    return parts + _dragon_head(0.24, -0.84)


def _flying_dragon():
    parts = [Part(_wing(0.10, -0.46, 0.40, 0.50, 0.10), "dark")]
    parts += [Part(curve([(-0.20, -0.36), (-0.40, -0.28), (-0.56, -0.34), (-0.64, -0.46)]), "main", 0.11)]
    parts += [Part(polygon([(-0.68, -0.62), (-0.76, -0.42), (-0.55, -0.44)]), "dark")]
    parts += [Part(curve([(x, -0.30), (x - 0.08, -0.16)]), "dark", 0.09) for x in (-0.12, 0.14)]
    body = [(-0.30, -0.36), (-0.16, -0.48), (0.10, -0.52), (0.28, -0.46), (0.30, -0.34), (0.12, -0.24), (-0.14, -0.26)]
    parts += [Part(curve([(0.20, -0.42), (0.36, -0.48), (0.42, -0.60)]), "main", 0.17), Part(blob(body), "main")]
    parts += [Part(blob([(0.30, -0.36), (0.12, -0.25), (-0.14, -0.27), (0.06, -0.33)]), "light")]
    parts += [Part(_wing(-0.04, -0.44, 0.54, 0.56, -0.06), "dark")]
    return parts + _dragon_head(0.46, -0.66)
