"""The autoencoder's training: its figures, its schedule, and that a cut and resumed run takes the same steps.

    python -m unittest test_train_vae
"""

import contextlib
import io
import itertools
import json
import shutil
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy
import torch
from diffusers import AutoencoderKL

import train_vae

CPU = torch.device("cpu")


def blocks(count: int, side: int = 32) -> numpy.ndarray:
    """Pictures of four plain squares each."""
    colours = numpy.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), numpy.uint8)
    return colours.repeat(side // 2, axis=1).repeat(side // 2, axis=2)


class Figures(unittest.TestCase):
    def test_pictures_survive_the_way_to_tensors_and_back(self):
        pictures = numpy.arange(2 * 8 * 16 * 3, dtype=numpy.uint8).reshape(2, 8, 16, 3)
        numpy.testing.assert_array_equal(train_vae.as_pictures(train_vae.as_tensor(pictures)), pictures)

    def test_psnr(self):
        one = numpy.zeros((2, 8, 8, 3), numpy.uint8)
        two = one.copy()
        two[0] = 255
        two[1] = 51  # a fifth of the range: 20 log10(5)
        numpy.testing.assert_allclose(train_vae.psnr(one, two), [0, 13.979400], atol=1e-5)

    def test_scaling_factor_makes_the_deviation_one(self):
        latents = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0))
        latents = latents * torch.tensor([[1.0], [2], [3], [4]]) + torch.tensor([[-5.0], [0], [1], [2]])
        factor = train_vae.scaling_factor(latents.mean(1), latents.std(1))
        self.assertAlmostEqual(float((latents * factor).std()), 1, delta=1e-3)

    def test_rate_warms_up_and_falls_to_zero(self):
        args = train_vae.arguments(["--data", ".", "-o", ".", "--lr", "1", "--warmup", "10", "--minutes", "10"])
        moments = ((0, 0), (99, 300), (99, 600), (99, 999))
        rates = [train_vae.learning_rate(args, step, seconds) for step, seconds in moments]
        numpy.testing.assert_allclose(rates, [0.1, 0.5, 0, 0], atol=1e-12)

    def test_whole_pictures_now_and_then_and_at_the_end(self):
        words = ["--data", ".", "-o", ".", "--whole-every", "4", "--whole-share", "0.5", "--minutes", "1"]
        args = train_vae.arguments(words)
        self.assertEqual([train_vae.whole(args, step, 10) for step in range(5)], [True, False, False, False, True])
        self.assertTrue(train_vae.whole(args, 1, 31))

    def test_loss_of_a_perfect_copy_is_the_divergence_alone(self):
        class Copy:
            """Keeps the pixels as the posterior's mean, with no variance to speak of, and gives them back."""

            def encode(self, pixels):
                pixels = pixels.clone()
                return type("Out", (), {"latent_dist": type("D", (), {"mean": pixels, "logvar": pixels * 0 - 60})})

            def decode(self, mean):
                return type("Out", (), {"sample": mean})

        args = train_vae.arguments(["--data", ".", "-o", ".", "--kl", "0.5"])
        pixels = train_vae.as_tensor(blocks(2))
        loss, parts = train_vae.losses(Copy(), pixels, torch.ones_like(pixels), args)
        for name in ("l1", "l2", "edges"):
            self.assertLess(float(parts[name]), 1e-6)
        self.assertAlmostEqual(float(loss), float(0.25 * (pixels.square() + 59).mean()), places=4)


class Data(unittest.TestCase):
    def test_crops_are_of_the_kept_pictures_and_some_are_mirrored(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            # The red channel tells the picture, green the row, blue the column.
            pictures = numpy.stack(numpy.meshgrid(range(6), range(24), range(24), indexing="ij"), axis=-1)
            numpy.save(path, pictures.astype(numpy.uint8))
            drawings = train_vae.Drawings(path, held=2)
            crops = train_vae.as_pictures(drawings.draw(200, 16, torch.Generator().manual_seed(0))).astype(int)
            self.assertEqual(crops.shape, (200, 16, 16, 3))
            self.assertEqual(set(crops[..., 0].ravel()), {0, 1, 2, 3})
            self.assertEqual(set(crops[:, 0, 0, 1]), set(range(9)))
            self.assertEqual({int(step) for step in crops[:, 0, 1, 2] - crops[:, 0, 0, 2]}, {-1, 1})
            self.assertTrue((crops[:, 1, 0, 1] - crops[:, 0, 0, 1] == 1).all())
            self.assertEqual(drawings.draw(3, None, torch.Generator()).shape, (3, 3, 24, 24))
            self.assertEqual(set(drawings.held()[..., 0].ravel()), {4, 5})

    def test_arrays_that_are_no_pictures_are_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            arrays = (numpy.zeros((9, 8, 8), numpy.uint8), numpy.zeros((9, 8, 8, 3), numpy.float32),
                      numpy.zeros((9, 8, 12, 3), numpy.uint8), numpy.zeros((2, 8, 8, 3), numpy.uint8))
            for array in arrays:
                numpy.save(path, array)
                with self.assertRaisesRegex(ValueError, "images.npy"):
                    train_vae.Drawings(path, held=2)


class Runs(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        numpy.save(self.root / "images.npy", blocks(24))
        words = ["--data", str(self.root), "-o", str(self.root), "--widths", "8,8,8,8", "--crop", "16", "--batch", "4"]
        self.args = train_vae.arguments([*words, "--held", "16", "--look", "16", "--warmup", "1", "--lr", "5e-3"])
        self.drawings = train_vae.Drawings(self.root / "images.npy", 16)
        # A clock of its own, on which each step takes a sixteenth of a second: no test depends on the machine's speed.
        ticks = itertools.count()
        clock = mock.patch.object(train_vae, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 16))
        clock.start()
        self.addCleanup(clock.stop)

    def steps(self, state, count):
        """Takes steps of crops."""
        for _ in range(count):
            pixels = self.drawings.draw(4, 16, state.generator)
            noise = torch.randn(4, 4, 2, 2, generator=state.generator)
            loss, _ = train_vae.losses(state.vae, pixels, noise, self.args)
            train_vae.optimise(state, loss, self.args)

    def test_a_resumed_run_takes_the_same_steps(self):
        path = self.root / "checkpoint.pt"
        through = train_vae.new_state(self.args, CPU)
        self.steps(through, 2)
        train_vae.save(through, path)
        self.steps(through, 2)
        self.args.seed = 1
        resumed = train_vae.new_state(self.args, CPU)
        train_vae.restore(resumed, path)
        self.assertEqual(resumed.step, 2)
        self.steps(resumed, 2)
        for part in ("vae", "average"):
            for one, two in zip(getattr(through, part).parameters(), getattr(resumed, part).parameters(), strict=True):
                torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)

    def test_a_step_without_a_finite_gradient_changes_nothing(self):
        state = train_vae.new_state(self.args, CPU)
        before = [tensor.detach().clone() for tensor in state.vae.parameters()]
        train_vae.optimise(state, sum(tensor.sum() for tensor in state.vae.parameters()) * float("nan"), self.args)
        for one, two in zip(before, state.vae.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)

    def test_a_finished_run_is_not_overwritten_and_goes_on_with_more_minutes(self):
        run, first = self.root / "run", self.root / "first"
        words = ["train_vae.py", "--data", str(self.root), "--widths", "8,8,8,8", "--crop", "16", "--batch", "4"]

        def command(*options):
            line = [*words, "--held", "16", *map(str, options)]
            with mock.patch("sys.argv", line), contextlib.redirect_stdout(io.StringIO()):
                train_vae.main()
            return torch.load(run / "checkpoint.pt", weights_only=True)

        self.assertEqual(command("-o", run, "--minutes", "0.0125")["step"], 12)
        with self.assertRaisesRegex(SystemExit, "--resume"):
            command("-o", run, "--minutes", "0.025")
        resumed = command("-o", run, "--minutes", "0.025", "--resume")
        self.assertEqual(resumed["step"], 24)
        shutil.copytree(run / "vae", first)
        with mock.patch.object(train_vae, "train") as train:
            command("-o", self.root / "second", "--from", first)
        begun = train.call_args.args[0]
        for one, two in zip(begun.vae.parameters(), resumed["average"].values(), strict=True):
            torch.testing.assert_close(one, two)
        self.assertTrue(all(tensor.requires_grad for tensor in begun.vae.parameters()))

    def test_a_run_learns_and_leaves_what_diffusers_reads(self):
        self.args.minutes, self.args.log_every, self.args.ema = 0.1, 5, 0.9
        state = train_vae.new_state(self.args, CPU)
        held = self.drawings.held()
        before = train_vae.psnr(held, train_vae.round_trip(state.average, held, CPU)).mean()
        with contextlib.redirect_stdout(io.StringIO()):
            train_vae.train(state, self.drawings, self.args, CPU)
        entries = [json.loads(line) for line in (self.root / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        vae = AutoencoderKL.from_pretrained(self.root / "vae").eval()
        after = train_vae.psnr(held, train_vae.round_trip(vae, held, CPU)).mean()
        self.assertGreater(after, before)
        self.assertAlmostEqual(entries[-1]["psnr"], float(after), places=1)
        mean, deviation = train_vae.latent_statistics(vae, self.drawings.pictures, CPU)
        self.assertAlmostEqual(vae.config.scaling_factor * train_vae.scaling_factor(mean, deviation) ** -1, 1, places=3)
        self.assertEqual(len(list(self.root.glob("round-trip-*.png"))), 1)
        self.assertFalse(list(self.root.glob("*.partial")))


if __name__ == "__main__":
    unittest.main()
