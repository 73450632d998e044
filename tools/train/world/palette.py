"""The colours of the world, and how the time of day changes them. All are sRGB, 0 to 1."""

from __future__ import annotations


def _rgb(text):
    return tuple(int(text[i:i + 2], 16) / 255 for i in (0, 2, 4))


MAIN = {name: _rgb(text) for name, text in {
    "red": "d93a34", "orange": "f28a26", "yellow": "f7d23e", "green": "45a552", "blue": "3c73d6", "purple": "8547bd",
    "pink": "f48fbb", "white": "f3f1ea", "black": "2c2a34"}.items()}

FIXED = {name: _rgb(text) for name, text in {
    "border": "fff5e1", "cream": "f6ead2", "mantle": "dedbd0", "ink": "25222d", "snowcap": "f7f9fc", "wood": "8a5a3c",
    "leaf": "3f8f4a", "stem": "3d7d45", "gold": "f6c544", "blush": "eda9a0", "trousers": "45465a", "pane": "bfe0ef",
    "lamp": "ffe08a", "sail": "fbf4e4", "basket": "a8713f", "cloud": "ffffff",
    "skin0": "f5cfae", "skin1": "dba67c", "skin2": "a56f49", "skin3": "6f4730",
    "hair0": "3a2a22", "hair1": "6b4226", "hair2": "d9a441", "hair3": "b0482c"}.items()}

# What the light does to the ground and (half as much) to subjects: a factor for red, green and blue.
LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.80, 0.70), "night": (0.44, 0.50, 0.76), "dawn": (1.0, 0.90, 0.96)}

# The sky from top to horizon.
SKY = {"day": ("63b1e6", "a5d5f1", "e3f3f6"), "sunset": ("5b3f86", "d9607a", "f9a95c"),
       "night": ("131c45", "22316b", "41559a"), "dawn": ("9aa6de", "d9bfe0", "fcdcd0")}
SPACE_SKY = ("150f36", "261a55", "3b2a74")


def sky(time: str, space: bool):
    """The sky's three colours, from the top down."""
    return [_rgb(text) for text in (SPACE_SKY if space else SKY[time])]


def rgb(text: str):
    """A colour from six hexadecimal digits."""
    return _rgb(text)


def lit(colour, time: str, share: float = 1.0):
    """A colour in the light of the time of day; `share` tells how much of the light's colour it takes."""
    return tuple(c * (1 - share + share * f) for c, f in zip(colour, LIGHT[time]))


def mix(a, b, share: float):
    """A colour between two, `share` of the way to the second."""
    return tuple(x + (y - x) * share for x, y in zip(a, b))


def tones(colour: str):
    """The tones of a subject's colour: itself, its shade, its highlight."""
    main = MAIN[colour]
    if colour == "black":
        dark, light = _rgb("17161d"), _rgb("55525f")
    elif colour == "white":
        dark, light = _rgb("c3c8d4"), _rgb("ffffff")
    else:
        dark, light = mix(main, _rgb("2a1f4a"), 0.32), mix(main, (1, 1, 1), 0.42)
    return {"main": main, "dark": dark, "light": light}
