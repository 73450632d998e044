"""Drawing by a program that stands in for Ratel: what it is asked, that nothing is drawn twice, and sheets of pictures.

    python -m unittest test_pictures
"""

import argparse
import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path

from PIL import Image, ImageFont

import pictures
from contact_sheet import GAP, sheet, wrapped

# Draws a grey square for every line that isn't blank, and notes its arguments.
STAND_IN = f"""#!{sys.executable}
import json, pathlib, sys
from PIL import Image
words = sys.argv[1:]
source = pathlib.Path(words[words.index("--from-file") + 1])
for number, line in enumerate(source.read_text().split("\\n"), 1):
    if line:
        asked = json.loads(line)
        path = source.parent / f"picture_{{number:04}}.png"
        Image.new("RGB", (8, 8), (asked["seed"],) * 3).save(path)
        print(json.dumps({{"line": number, "seconds": 0.1}}), flush=True)
with open(source.parent / "calls.txt", "a") as calls:
    calls.write(" ".join(words) + "\\n")
if "--steps" in words and words[words.index("--steps") + 1] == "13":
    sys.exit(3)
"""


class Pictures(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        self.program = self.place / "stand_in"
        self.program.write_text(STAND_IN, encoding="utf-8")
        self.program.chmod(0o755)
        self.requests = [{"prompt": f"prompt {seed}", "seed": seed} for seed in (10, 20, 30)]

    def draw(self, requests, *words):
        parser = argparse.ArgumentParser()
        pictures.add_arguments(parser)
        args = parser.parse_args(["--ratel", str(self.program), *words])
        with contextlib.redirect_stdout(io.StringIO()):
            return pictures.draw_all(args, requests, self.place / "set")

    def calls(self):
        return (self.place / "set/calls.txt").read_text(encoding="utf-8").splitlines()

    def test_each_request_has_its_picture(self):
        paths = self.draw(self.requests, "--width", "8", "--cfg-scale", "2.5")
        self.assertEqual([Image.open(path).getpixel((0, 0))[0] for path in paths], [10, 20, 30])
        self.assertIn("--width 8 --cfg-scale 2.5 --json", self.calls()[0])
        self.assertNotIn("--model", self.calls()[0])

    def test_what_is_there_is_not_drawn_again(self):
        paths = self.draw(self.requests)
        paths[1].unlink()
        Image.new("RGB", (8, 8), (99, 99, 99)).save(paths[0])
        again = self.draw(self.requests)
        self.assertEqual([Image.open(path).getpixel((0, 0))[0] for path in again], [99, 20, 30])
        self.draw(self.requests)
        self.assertEqual(len(self.calls()), 2)

    def test_pictures_of_something_else_are_refused(self):
        self.draw(self.requests)
        with self.assertRaisesRegex(SystemExit, "other prompts"):
            self.draw(self.requests[:2])
        with self.assertRaisesRegex(SystemExit, "settings"):
            self.draw(self.requests, "--steps", "5")

    def test_other_weights_are_noticed(self):
        model = self.place / "model"
        model.mkdir()
        (model / "weights").write_bytes(b"one")
        self.draw(self.requests, "--model", str(model))
        (model / "weights").write_bytes(b"two")
        with self.assertRaisesRegex(SystemExit, "weights"):
            self.draw(self.requests, "--model", str(model))

    def test_a_failure_is_told(self):
        with self.assertRaisesRegex(SystemExit, "ended with 3"):
            self.draw(self.requests, "--steps", "13")

    def test_a_sheet_holds_every_picture_where_it_belongs(self):
        images = [Image.new("RGB", (40, 30), (seed, 0, 0)) for seed in range(50, 55)]
        captions = ["short", "a caption of many words that does not fit on one line", "c", "d", "e"]
        page = sheet(images, captions, 2, (False, True, False, False, False))
        self.assertEqual(page.width, GAP + 2 * (40 + GAP))
        self.assertEqual(page.getpixel((GAP, GAP)), (50, 0, 0))
        self.assertEqual(page.getpixel((2 * GAP + 40, GAP)), (51, 0, 0))
        colours = {pixel for _, pixel in page.getcolors(1 << 16)}
        self.assertLessEqual({(seed, 0, 0) for seed in range(50, 55)}, colours)
        font = ImageFont.load_default(11)
        lines = wrapped(captions[1], 80, font)
        self.assertEqual(" ".join(lines), captions[1])
        self.assertTrue(len(lines) > 1 and all(font.getlength(line) <= 80 for line in lines))


if __name__ == "__main__":
    unittest.main()
