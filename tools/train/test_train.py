"""Training's own mathematics, and that a run which was cut and resumed takes the same steps."""

import argparse
import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file

import cub_model
import export
import latents
import muon
import tokenizer
import train_cub


class Mathematics(unittest.TestCase):
    def test_schedule_is_diffusers(self):
        expected = DDIMScheduler(**cub_model.SCHEDULE).alphas_cumprod
        torch.testing.assert_close(cub_model.signal_shares().float(), expected, atol=1e-6, rtol=1e-4)

    def test_velocity_is_diffusers(self):
        reference = DDIMScheduler(**cub_model.SCHEDULE)
        clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
        steps = torch.tensor([0, 500, 999])
        x, v = train_cub.noised(clean, noise, reference.alphas_cumprod[steps])
        torch.testing.assert_close(x, reference.add_noise(clean, noise, steps))
        torch.testing.assert_close(v, reference.get_velocity(clean, noise, steps))

    def test_weights(self):
        shares = torch.tensor([0.5, 0.99, 1e-3], dtype=torch.float64)  # SNR 1, 99, 0.001
        expected = torch.tensor([1 / 2, 5 / 100, 1e-3], dtype=torch.float64)
        torch.testing.assert_close(train_cub.loss_weights(shares, "uniform"), expected, atol=1e-9, rtol=1e-5)
        self.assertTrue((train_cub.loss_weights(shares, "normal") == 1).all())

    def test_timesteps(self):
        spread = (torch.arange(10_000) + 0.5) / 10_000
        self.assertEqual(train_cub.timesteps(spread, "uniform").bincount().tolist(), [10] * 1000)
        steps = train_cub.timesteps(spread, "normal")
        self.assertTrue((steps.bincount(minlength=1000) > 0).all())
        share = cub_model.signal_shares()[steps[1000:]]
        level = (share / (1 - share)).log()
        self.assertAlmostEqual(float(level.mean()), 0, delta=0.1)
        self.assertAlmostEqual(float(level.std()), 2, delta=0.15)

    def test_orthogonal(self):
        torch.manual_seed(0)
        for shape in ((3, 16, 40), (3, 40, 16)):
            values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape)))
            self.assertGreater(float(values.min()), 0.5)
            self.assertLess(float(values.max()), 1.3)

    def test_rate_warms_up_stays_and_falls(self):
        args = argparse.Namespace(lr=1.0, warmup=10, minutes=60, schedule="wsd", decay_minutes=20)
        moments = ((0, 0), (99, 1), (99, 40), (99, 50), (99, 60))
        rates = [train_cub.learning_rate(args, step, 60 * minutes) for step, minutes in moments]
        self.assertEqual(rates, [0.1, 1.0, 1.0, 0.5, 0.0])
        args.schedule = "constant"
        self.assertEqual(train_cub.learning_rate(args, 99, 60 * 59), 1.0)

    def test_attention_is_diffusers(self):
        torch.manual_seed(0)
        for context in (None, torch.randn(2, 7, 24)):
            width = None if context is None else context.shape[2]
            attention = Attention(query_dim=64, cross_attention_dim=width, heads=2, dim_head=32)
            tokens = torch.randn(2, 9, 64)
            expected = attention(tokens, encoder_hidden_states=context)
            attention.set_processor(cub_model.PlainAttention())
            torch.testing.assert_close(attention(tokens, encoder_hidden_states=context), expected, atol=1e-6, rtol=1e-5)


class Runs(unittest.TestCase):
    """Short runs on random pictures of two sizes with an untrained autoencoder."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = root = Path(self.folder.name)
        rng = numpy.random.default_rng(0)
        for name, size in (("square", (32, 32)), ("wide", (32, 64))):
            (root / name).mkdir()
            numpy.save(root / name / "images.npy", rng.integers(0, 255, (24, *size, 3), numpy.uint8))
            captions = [[f"picture {number}", "a picture"] for number in range(24)]
            (root / name / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
        torch.manual_seed(0)
        kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
        AutoencoderKL(block_out_channels=[8] * 4, norm_num_groups=4, **kinds).save_pretrained(root / "vae")
        tokenizer.write(root / "tokenizer", tokenizer.learn_merges(["a picture"], 6))
        small = mock.patch.object(train_cub, "build_unet", lambda: cub_model.build_unet((32, 32, 64)))
        small.start()
        self.addCleanup(small.stop)

    def args(self, output: str, *words):
        root = self.root
        words = words or ("--vae", root / "vae", "--tokenizer", root / "tokenizer")
        words = [*words, "--data", root / "square", root / "wide"]
        words += ["-o", root / output, "--batch", "8", "--validation", "8", "--no-compile", "--warmup", "2"]
        with mock.patch("sys.argv", ["train_cub.py", *map(str, words)]):
            return train_cub.arguments()

    def prepared(self, output: str, *words):
        args = self.args(output, *words)
        args.output.mkdir(exist_ok=True)
        device = torch.device("cpu")
        words = train_cub.CLIPTokenizer.from_pretrained(self.root / "tokenizer")
        with contextlib.redirect_stdout(io.StringIO()):
            folders = [latents.load(folder, args.vae, words, device) for folder in args.data]
        batches = train_cub.Batches(folders, args, latents.token_ids(words, [[""]])[0, 0])
        return train_cub.new_state(len(words), args, device), batches, args, device

    def train(self, prepared, steps: int):
        state, batches, args, device = prepared
        draw, last = batches.draw, state.step + steps

        def counted(state):
            if state.step + 1 == last:
                args.minutes = 0
            return draw(state)

        args.minutes, args.schedule = 1e9, "constant"
        with mock.patch.object(batches, "draw", counted), contextlib.redirect_stdout(io.StringIO()):
            train_cub.train(state, batches, None, args, device)
        return state

    def test_resumed_run_takes_the_same_steps(self):
        whole = self.train(self.prepared("whole"), 6)
        self.train(self.prepared("cut"), 3)
        again = self.prepared("cut")
        train_cub.restore(again[0], self.root / "cut" / "checkpoint.pt")
        resumed = self.train(again, 3)
        self.assertEqual((resumed.step, resumed.samples, resumed.drawn), (whole.step, whole.samples, whole.drawn))
        tensors = [[*state.parameters(), *state.average] for state in (resumed, whole)]
        for ours, theirs in zip(*tensors, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)

    def test_batches(self):
        state, batches, args, _ = self.prepared("batches")
        args.others, args.drop, args.levels = 0.5, 0.25, "uniform"
        sizes, seen = set(), set()
        for _ in range(40):
            usual, clean, tokens, steps, noise = batches.draw(state)
            sizes.add((usual, *clean.shape))
            self.assertEqual(noise.shape, clean.shape)
            self.assertEqual(len({int(step) * len(steps) // 1000 for step in steps}), len(steps))
            seen.update(map(tuple, tokens.tolist()))
        self.assertEqual(sizes, {(True, 8, 4, 4, 4), (False, 8, 4, 4, 8)})
        self.assertIn(tuple(batches.empty.tolist()), seen)
        self.assertEqual(sum(state.drawn.values()), 40 * 8)

    def test_epoch_holds_each_training_picture_once(self):
        state, batches, _, _ = self.prepared("epochs")
        rows = numpy.concatenate([batches._rows(state, batches.folders[0], 16, 8) for _ in range(4)])
        self.assertEqual(sorted(rows[:16]), list(range(16)))
        self.assertEqual(sorted(rows[16:]), list(range(16)))

    def test_image_space_leaves_the_text_encoder_as_it_is(self):
        self.train(self.prepared("cub"), 1)
        words = ("--text-encoder", self.root / "cub")
        with mock.patch.object(train_cub, "build_pixel_unet", lambda: cub_model.build_unet((32, 32, 64), channels=3)):
            prepared = self.prepared("pixels", *words)
        before = [tensor.clone() for tensor in prepared[0].unet.parameters()]
        state = self.train(prepared, 2)
        self.assertTrue(any((a != b).any() for a, b in zip(before, state.unet.parameters(), strict=True)))
        kept, first = (load_file(self.root / run / "text_encoder" / "model.safetensors") for run in ("pixels", "cub"))
        self.assertEqual(kept.keys(), first.keys())
        for name, tensor in kept.items():
            torch.testing.assert_close(tensor, first[name], atol=0, rtol=0)

    def test_a_folder_of_image_space_shares_the_text_encoder(self):
        root = self.root
        torch.manual_seed(0)
        text_encoder = cub_model.build_text_encoder(len(train_cub.CLIPTokenizer.from_pretrained(root / "tokenizer")))
        vae = AutoencoderKL.from_pretrained(root / "vae")
        pixel_unet = cub_model.build_unet((32, 32), (False, True), 3, 8)
        cub, pixels = root / "exported", root / "exported-pixels"
        cub.mkdir(), pixels.mkdir()
        export.write(cub, (text_encoder, cub_model.build_unet((32, 32), (False, True)), vae), root / "tokenizer", {})
        export.write(pixels, (text_encoder, pixel_unet, None), root / "tokenizer", {"guidance_scale": 3.0}, cub)
        found = sorted(path.name for path in pixels.iterdir())
        self.assertEqual(found, ["model_index.json", "ratel.json", "scheduler", "unet"])
        index = json.loads((pixels / "model_index.json").read_text(encoding="utf-8"))
        self.assertEqual((index["vae"], index["unet"][1]), ([None, None], "UNet2DConditionModel"))
        stored = load_file(pixels / "unet" / "diffusion_pytorch_model.safetensors")
        self.assertEqual({tensor.dtype for tensor in stored.values()}, {torch.float16})
        with torch.no_grad():
            text_encoder.get_parameter("final_layer_norm.weight")[0] += 1
        with self.assertRaisesRegex(ValueError, "final_layer_norm.weight"):
            export.write(pixels, (text_encoder, pixel_unet, None), root / "tokenizer", {}, cub)

    def test_pictures_of_image_space_are_means_of_squares(self):
        with mock.patch.object(latents, "PIXEL_SIDE", 8):
            found = latents.shrunk(self.root / "wide" / "images.npy")
        self.assertEqual(found.shape, (24, 3, 8, 16))
        pixels = numpy.load(self.root / "wide" / "images.npy")[5, 4:8, 12:16, 1]
        self.assertAlmostEqual(float(found[5, 1, 1, 3]), pixels.mean() / 127.5 - 1, delta=1e-3)

    def test_latents_are_the_scaled_means(self):
        vae = cub_model.load_vae(self.root / "vae")
        with contextlib.redirect_stdout(io.StringIO()):
            cached = latents.cached_latents(self.root / "wide", self.root / "vae", torch.device("cpu"))
        pixels = torch.from_numpy(numpy.load(self.root / "wide" / "images.npy")[:2]).permute(0, 3, 1, 2) / 127.5 - 1
        expected = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        torch.testing.assert_close(torch.from_numpy(cached[:2].astype(numpy.float32)), expected, atol=5e-3, rtol=0.02)


if __name__ == "__main__":
    unittest.main()
