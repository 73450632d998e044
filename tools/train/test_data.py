"""Rendering to a folder: what is written is what the world draws, says and holds.

    python -m unittest test_data
"""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy

import data
from world import captions, draw, held_out, sample


def render(folder: Path, *options: str) -> None:
    """Runs data.py's command line in this process, without its output."""
    words = ["data.py", "-o", str(folder), "--captions", "3", *options]
    with mock.patch("sys.argv", words), contextlib.redirect_stdout(io.StringIO()):
        data.main()


def read(folder: Path):
    """Pictures, captions and labels."""
    paths = (folder / f"{name}.json" for name in ("captions", "labels"))
    texts, labels = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    return numpy.load(folder / "images.npy"), texts, labels


class Folders(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)

    def test_rows_are_the_scenes_of_their_seeds(self):
        # Blocks shorter than the whole, so that every process's rows are looked at.
        with mock.patch.object(data, "CHUNK", 4):
            render(self.root, "--split", "unseen", "--count", "10", "--seed", "100", "--processes", "2")
        pictures, texts, labels = read(self.root)
        self.assertEqual((pictures.shape, pictures.dtype), ((10, 128, 128, 3), numpy.uint8))
        for row in range(10):
            scene = sample(100 + row, "unseen")
            numpy.testing.assert_array_equal(pictures[row], draw(scene))
            self.assertEqual(texts[row], captions(scene, 100 + row, 3))
            first = labels[row]["subjects"][0]
            self.assertEqual((first["kind"], first["colour"], first["size"]),
                             (scene.subjects[0].kind, scene.subjects[0].colour, scene.subjects[0].size))
            self.assertEqual(len(labels[row]["subjects"]), len(scene.subjects))
            self.assertTrue(held_out(first["kind"], first["colour"], labels[row]["setting"]))

    def test_other_sizes(self):
        render(self.root, "--count", "3", "--width", "192", "--height", "128", "--processes", "1")
        pictures, _, _ = read(self.root)
        self.assertEqual(pictures.shape, (3, 128, 192, 3))
        numpy.testing.assert_array_equal(pictures[2], draw(sample(2), 192, 128))

    def test_nothing_partial_is_left(self):
        render(self.root, "--count", "2", "--processes", "1")
        self.assertEqual({path.name for path in self.root.iterdir()}, {"images.npy", "captions.json", "labels.json"})

    def test_sizes_that_no_autoencoder_takes_are_refused(self):
        for words in (("--count", "2", "--width", "100"), ("--count", "2", "--height", "32"), ("--count", "0")):
            with self.assertRaises(SystemExit):
                render(self.root, *words)


if __name__ == "__main__":
    unittest.main()
