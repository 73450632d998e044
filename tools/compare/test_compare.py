"""The comparison: how engines' output is read, what records add up to, and that a failure or a stop loses nothing.

    python -m unittest test_compare
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import checkpoint
import children
import compare
import engines
import report

SD_CPP = """  |====| 7/686 - 900.00it/s
[INFO ] stable-diffusion.cpp:3432 - sampling using Euler method
  |=====>          | 1/3 - 8.00s/it\r  |==========>     | 2/3 - 6.00s/it\r  |===============>| 3/3 - 5.00s/it
[INFO ] stable-diffusion.cpp:3208 - latent 1 decoded, taking 7.52s
[INFO ] stable-diffusion.cpp:3212 - decode_first_stage completed, taking 7.53s
"""
BENCH = json.dumps(
    {
        "model": "sd15",
        "rows": [
            {"test": "text encoder", "seconds": 0.1, "flops": 1.0},
            {"test": "UNet step", "seconds": 4.0, "flops": 360e9},
            {"test": "VAE decode", "seconds": 6.0, "flops": 622e9},
        ],
    }
)
TASK = engines.Task(Path("sd15"), Path("sd15.safetensors"), 256, 2, 60.0)


def record(engine: str, kind: str, unet: float, vae: float, **more) -> dict:
    """A record of one process."""
    sizes = {"checkpoint_bytes": 1000, "peak_bytes": 1500, "peak_private_bytes": 500}
    seconds = {"unet": [unet], "vae": [vae]}
    return {"round": 0, "pixels": 256, "engine": engine, "kind": kind, "seconds": seconds, "flops": {}, **sizes, **more}


class Children(unittest.TestCase):
    """Programs that are run and watched."""

    def test_output_and_memory(self):
        code = "import sys, time; b = bytearray(50 << 20); print('out'); print('err', file=sys.stderr); time.sleep(0.3)"
        finished = children.run([sys.executable, "-c", code], 30)
        self.assertEqual((finished.output, finished.log), ("out\n", "err\n"))
        self.assertGreaterEqual(finished.seconds, 0.3)
        if Path("/proc/self/status").exists():
            self.assertGreater(finished.peak_private_bytes, 50 << 20)
            self.assertGreaterEqual(finished.peak_bytes, finished.peak_private_bytes)

    def test_nothing_outlives_it(self):
        code = "import children, sys; children.end_with_children(); children.run(['sleep', '31.4159'], 60)"
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=engines.HERE, stderr=subprocess.DEVNULL)
        child = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        if not child.exists():
            self.skipTest("the system does not list children")
        for _ in range(200):
            pids = child.read_text(encoding="utf-8").split()
            if pids and Path(f"/proc/{pids[0]}/comm").read_text(encoding="utf-8") == "sleep\n":
                break
            time.sleep(0.02)
        time.sleep(0.3)  # until it waits for the child
        parent.terminate()
        self.assertNotEqual(parent.wait(timeout=10), 0)
        self.assertFalse(Path(f"/proc/{pids[0]}").exists())

    def test_what_it_started_ends_with_it(self):
        code = "import subprocess, time; print(subprocess.Popen(['sleep', '31.4159']).pid, flush=True); time.sleep(30)"
        with self.assertRaises(children.Failed) as caught:
            children.run([sys.executable, "-c", code], 2)
        status = Path(f"/proc/{int(caught.exception.output)}/status")
        for _ in range(100):  # whoever inherits it may be slow to bury it
            if not status.exists() or "State:\tZ" in status.read_text(encoding="utf-8"):
                return
            time.sleep(0.02)
        self.fail("it goes on")

    def test_failures_say_why(self):
        cases = {
            "exit status 3; wrong": ([sys.executable, "-c", "import sys; sys.stderr.write('wrong'); sys.exit(3)"], 30),
            "stopped after 0 s": ([sys.executable, "-c", "import time; time.sleep(30)"], 0.2),
            "no-such-program: No such file or directory": (["no-such-program"], 1),
        }
        for message, (command, limit) in cases.items():
            with self.subTest(message), self.assertRaises(children.Failed) as caught:
                children.run(command, limit)
            self.assertEqual(str(caught.exception), message)


class Engines(unittest.TestCase):
    """What is run, and what is read."""

    def test_steps_are_differences_of_means(self):
        seconds, _ = engines.read_sd_cpp(SD_CPP)
        self.assertEqual(seconds, {"unet": [4.0, 3.0], "vae": [7.53]})

    def test_a_single_step_is_taken_as_it_is(self):
        seconds, _ = engines.read_sd_cpp(" | 1/1 - 2.00it/s\n decode_first_stage completed, taking 1.00s")
        self.assertEqual(seconds, {"unet": [0.5], "vae": [1.0]})

    def test_vulkan_device(self):
        log = "[DEBUG] ggml_vulkan: Found 1 Vulkan devices:\n[DEBUG] ggml_vulkan: 0 = A card (vendor) | uma: 0\n"
        self.assertEqual(engines.sd_cpp_device(log), "A card (vendor)")
        self.assertIsNone(engines.sd_cpp_device(SD_CPP))

    def test_times_among_other_lines(self):
        seconds, _ = engines.read_json('AUTOTUNE\n{"unet": [2]}\n{"unet": [2], "vae": [1]}\nbye')
        self.assertEqual(seconds, {"unet": [2.0], "vae": [1.0]})

    def test_ratel_says_flops(self):
        seconds, flops = engines.read_ratel(BENCH)
        self.assertEqual((seconds, flops), ({"unet": [4.0], "vae": [6.0]}, {"unet": 360e9, "vae": 622e9}))

    def test_memory_is_of_the_largest_component(self):
        plan = "x; activations 3.50 MiB, weights 9\nx; activations 101.00 MiB, weights 9\npeak: 110.00 MiB, since\n"
        code = f"import sys; print('{{\"summary\": {{\"peak_bytes\": 7}}}}' if sys.argv[1] == 'profile' else {plan!r})"
        engine = engines.Engine("memory", "ratel-memory", [sys.executable, "-c", code])
        measured = engines.measure(engine, TASK)
        mib = 2**20
        self.assertEqual(
            measured.device_bytes, {"held": 7, "planned": 110 * mib, "activations_512_f16": 101 * mib}
        )
        records = [{"engine": "memory", "kind": "ratel-memory", "pixels": 256, "round": 0, **vars(measured)}]
        self.assertEqual([t.met for t in report.targets(report.medians(records))], [True, True])
        self.assertIn("| memory | 0 | 110 | 101 |", report.markdown("title", records))

    def test_output_without_times_is_a_failure(self):
        for kind in engines.KINDS:
            engine = engines.Engine("broken", kind, [sys.executable, "-c", "print('nothing of use')"])
            with self.subTest(kind), mock.patch.object(engines, "size", return_value=0):
                with self.assertRaises(children.Failed) as caught:
                    engines.measure(engine, TASK)
                self.assertIn("nothing of use", str(caught.exception))

    def test_parts_that_ran_elsewhere_do_not_count(self):
        engine = engines.Engine("sd.cpp", "stable-diffusion.cpp", [sys.executable, "-c", f"print({SD_CPP!r})"], parts=["unet"])
        with mock.patch.object(engines, "size", return_value=0):
            self.assertEqual(engines.measure(engine, TASK).seconds, {"unet": [4.0, 3.0]})

    def test_commands(self):
        ratel = engines.Engine("Ratel", "ratel", ["env", "ratel"], device="cpu", options=["--precision", "f16"])
        command, checkpoint = engines.command_line(ratel, TASK)
        ends = ["--device", "cpu", "--precision", "f16"]
        self.assertEqual((command[:2], command[-4:], checkpoint), (["env", "ratel"], ends, TASK.file))
        sd_cpp = engines.Engine("sd.cpp", "stable-diffusion.cpp", ["sd-cli"], options=["--fa"])
        command, _ = engines.command_line(sd_cpp, TASK)
        self.assertEqual((command[command.index("--steps") + 1], command[-1]), ("3", "--fa"))

    def test_file_of_engines(self):
        example = engines.read_engines(engines.HERE / "engines.example.json")
        self.assertEqual({engine.kind for engine in example}, set(engines.KINDS))
        wrong = {
            '{"a": {"kind": "ratel"}}': "command",
            '{"a": {"kind": "rattle", "command": ["x"]}}': "rattle",
            '{"a": {"kind": "ratel", "command": []}}': "empty",
            '{"a": {"kind": "ratel", "command": ["x"], "speed": 1}}': "speed",
            '{"a": {"kind": "ratel", "command": ["x"], "parts": ["unet", "text"]}}': "not text",
            "{": "line 1",
        }
        for text, said in wrong.items():
            with self.subTest(text), tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "engines.json"
                path.write_text(text, encoding="utf-8")
                with self.assertRaisesRegex(ValueError, said):
                    engines.read_engines(path)


class Report(unittest.TestCase):
    """What records add up to."""

    RECORDS = [
        record("sgemm", "sgemm", 0, 0, seconds={"sgemm": [0.2, 0.1, 0.1]}, checkpoint_bytes=0),
        record("Ratel A", "ratel", 4.0, 6.0, driver="A", share=0.3, flops={"unet": 360e9}),
        record("Ratel A", "ratel", 6.0, 6.0, driver="A", share=0.3, flops={"unet": 360e9}),
        record("Ratel A", "ratel", 4.0, 6.0, driver="A", share=0.3, flops={"unet": 360e9}),
        record("Ratel B", "ratel", 8.0, 5.0, driver="B"),
        record("Ratel, twins", "ratel", 1.0, 1.0),
        record("sd.cpp", "stable-diffusion.cpp", 4.0, 4.0),
        record("sd.cpp Vulkan", "stable-diffusion.cpp", 100.0, 40.0, driver="B"),
        record("candle", "candle", 2.0, 10.0),
        {"round": 0, "pixels": 256, "engine": "lost", "kind": "diffusers", "error": "exit status 1"},
    ]

    def test_ratios_of_medians(self):
        ratios = report.ratios(report.medians(self.RECORDS))
        self.assertEqual(ratios["unet"]["Ratel A"], {"sd.cpp": 1.0, "sd.cpp Vulkan": 0.04, "candle": 2.0})
        self.assertEqual(ratios["vae"]["Ratel B"]["candle"], 0.5)

    def test_targets_take_the_best_driver_or_the_same(self):
        found = {target.what: target for target in report.targets(report.medians(self.RECORDS))}
        met = {what: target.met for what, target in found.items()}
        self.assertEqual(
            met,
            {
                "guided UNet step: Ratel A / sd.cpp": True,
                "guided UNet step: Ratel B / sd.cpp Vulkan": True,
                "guided UNet step: Ratel A / candle": False,
                "VAE decode: Ratel B / sd.cpp": True,
                "VAE decode: Ratel B / sd.cpp Vulkan": False,
                "VAE decode: Ratel B / candle": True,
                "share of sgemm in a guided UNet step: Ratel A": True,
            },
        )
        reached = found["share of sgemm in a guided UNet step: Ratel A"].found
        self.assertAlmostEqual(reached, 90e9 / (2 * 2048**3 / 0.1))

    def test_markdown_names_what_failed(self):
        text = report.markdown("title", self.RECORDS)
        self.assertIn("| Ratel A | 4.00 | 50% | 6.00 | 0% | 52% | 3 |", text)
        self.assertIn("- lost: exit status 1", text)
        self.assertEqual(len(json.loads(json.dumps(report.plain("title", self.RECORDS)))["records"]), len(self.RECORDS))


class Compare(unittest.TestCase):
    """Rounds."""

    def test_goes_on_where_it_stopped(self):
        every = [engines.Engine(name, "sgemm", ["x"], once=name == "slow") for name in ("fast", "slow", "broken")]
        calls = []

        def measure(engine, _):
            calls.append(engine.name)
            if engine.name == "broken":
                raise children.Failed("exit status 1")
            return engines.Measured({"sgemm": [0.1]})

        with tempfile.TemporaryDirectory() as folder, mock.patch.object(engines, "measure", measure):
            path = Path(folder) / "records.jsonl"
            with contextlib.redirect_stdout(io.StringIO()):
                compare.measure_all(every, TASK, 1, path)
                compare.measure_all(every, TASK, 3, path)
            records = compare.read_records(path)
        self.assertEqual(calls, ["fast", "slow", "broken", "fast", "fast"])
        self.assertEqual([r["engine"] for r in records], calls)
        self.assertEqual(records[2]["error"], "exit status 1")


class Checkpoint(unittest.TestCase):
    """Checkpoints are whole or not there."""

    def test_what_was_cut_off_is_made_again(self):
        making = "import pathlib, sys; p = pathlib.Path(sys.argv[-1]); p.mkdir(); (p / 'a').touch(); sys.exit({})"
        with tempfile.TemporaryDirectory() as folder:
            maker, path = Path(folder) / "make.py", Path(folder) / "sd15"
            with mock.patch.object(checkpoint, "MAKE", maker):
                maker.write_text(making.format(1), encoding="utf-8")
                with self.assertRaises(subprocess.CalledProcessError):
                    checkpoint.make(path, [])
                self.assertEqual(list(Path(folder).iterdir()), [maker])
                maker.write_text(making.format(0), encoding="utf-8")
                checkpoint.make(path, [])
                self.assertTrue((path / "a").exists())
                checkpoint.make(path, [])  # a second time, mkdir would fail


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, _) -> unittest.TestSuite:
    """Those of tools/compare/gpu belong to this module: where it is named, both are run."""
    tests.addTests(loader.loadTestsFromName("test_gpu"))
    return tests


if __name__ == "__main__":
    unittest.main()
