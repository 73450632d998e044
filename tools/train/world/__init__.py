"""A small world of paper-cut pictures with captions, drawn from seeds: what cub learns from."""

from .captions import caption, captions
from .draw import draw
from .scene import Scene, Subject, sample
from .vocabulary import COLOURS, RELATIONS, SETTINGS, SIZES, SUBJECTS, TIMES, held_out

__all__ = ["COLOURS", "RELATIONS", "SETTINGS", "SIZES", "SUBJECTS", "TIMES", "Scene", "Subject", "caption", "captions",
           "draw", "held_out", "sample"]
