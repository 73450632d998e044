"""Draws prompts with Ratel and lays the pictures side by side, each with its prompt and seed. None is left out.

    python contact_sheet.py -o sheet.png --seeds 1 2
    python contact_sheet.py -o sheet.png --prompts prompts.txt --seeds 1 --columns 6 --scale 2 --model DIR
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import pictures
from prompts import SHOWCASE

GAP, LINE, TEXT = 10, 13, 11  # pixels: between pictures, from line to line, of the letters
PAPER, INK, WRONG = "white", "#222222", "#c0281f"


def wrapped(text: str, width: int, font) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is longer has a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def sheet(images: list[Image.Image], captions: list[str], columns: int, wrong: tuple[bool, ...] = ()) -> Image.Image:
    """The images in rows, in their order, each above its caption; captions of what is `wrong` are red."""
    font = ImageFont.load_default(TEXT)
    wide, high = max(image.width for image in images), max(image.height for image in images)
    texts = [wrapped(caption, wide, font) for caption in captions]
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    below = [LINE * max(len(texts[i]) for i in row) + 6 for row in rows]
    page = Image.new("RGB", (GAP + columns * (wide + GAP), GAP + sum(high + text + GAP for text in below)), PAPER)
    pen, top = ImageDraw.Draw(page), GAP
    for row, text in zip(rows, below, strict=True):
        for column, i in enumerate(row):
            left = GAP + column * (wide + GAP)
            page.paste(images[i], (left, top))
            colour = WRONG if wrong and wrong[i] else INK
            pen.multiline_text((left, top + high + 3), "\n".join(texts[i]), fill=colour, font=font, spacing=2)
        top += high + text + GAP
    return page


def opened(path: Path, scale: int = 1) -> Image.Image:
    """A picture, enlarged."""
    with Image.open(path) as image:
        size = (image.width * scale, image.height * scale)
        # of few pixels each one is to be seen
        method = Image.Resampling.NEAREST if image.width <= 64 else Image.Resampling.BICUBIC
        return image.convert("RGB").resize(size, method)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="one a line; else those of prompts.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="a picture of every prompt for each")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--scale", type=int, default=1, help="how many times larger than drawn")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="also keep the pictures")
    pictures.add_arguments(parser)
    args = parser.parse_args()
    prompts = SHOWCASE
    if args.prompts:
        prompts = [line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    requests = [{"prompt": prompt, "seed": seed} for prompt in prompts for seed in args.seeds]
    with tempfile.TemporaryDirectory() as folder:
        paths = pictures.draw_all(args, requests, args.keep or Path(folder))
        images = [opened(path, args.scale) for path in paths]
    captions = [f"{request['prompt']} (seed {request['seed']})" for request in requests]
    sheet(images, captions, args.columns).save(args.output)


if __name__ == "__main__":
    main()
