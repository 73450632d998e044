"""tools/compare/gpu: that a failure or a stop loses nothing else, and that the report says what is and what is missing.

    python -m unittest test_gpu
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from unittest import mock

import children
import gpu_parts
import gpu_report
from test_compare import SD_CPP


def script(name: str):
    """A program without an ending in its name, as a module."""
    loader = SourceFileLoader(name, str(gpu_parts.HERE / name))
    spec = spec_from_loader(name, loader)
    module = module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def rows(step: float) -> str:
    """What `ratel bench` prints."""
    found = [
        {"test": "UNet step", "seconds": step, "flops": 360e9, "attainable_seconds": step / 4},
        {"test": "VAE decode", "seconds": 6.0, "flops": 622e9, "attainable_seconds": None},
    ]
    return json.dumps({"device": "A card (vulkan, discrete GPU)", "precision": "f16", "rows": found})


def kernel(name: str, folder: str, ms: float, share: float, roof_share: float) -> dict:
    """A row of `ratel profile`."""
    ns = 1e6 * ms
    work = {"dispatches": 3, "flops": 1e9 * ms, "bytes": 2e6 * ms, "flops_per_second": 1e12, "bytes_per_second": 2e9}
    known = {"roof_share": roof_share, "roof_ns": ns * roof_share, "gain_ns": ns * (1 - roof_share), "bound": "compute"}
    files = [f"shaders/{folder}/{name}.wgsl"]
    return {"name": name, "files": files, "ns": {"median": ns}, "share": share, **work, **known}


PROFILE = json.dumps(
    {
        "rows": {"kernel": [
            kernel("conv2d_coop", "conv", 3.0, 0.6, 0.5),
            kernel("matmul", "matmul", 1.0, 0.2, 0.25),
            kernel("conv2d", "conv", 1.0, 0.2, 0.1),
        ]},
        "summary": {"wall_ns": {"median": 6e6}, "device_ns": {"median": 5e6}, "idle_ns": 1e6, "peak_bytes": 2**20},
        "run": {"recorded_steps": [0, 3], "precision": "f16"},
    }
)  # fmt: skip
ROOFLINE = json.dumps(
    {
        "probes": [
            {"kernel": "roof_copy", "what": "128 MiB", "median": 3e12, "spread": 0.01},
            {"kernel": "roof_fma", "what": "f32", "median": 6e13, "spread": 0.01},
        ]
    }
)


class Plan(unittest.TestCase):
    """What is run, and what output is good for."""

    @staticmethod
    def plan(*words: str) -> list[gpu_parts.Part]:
        """The parts of a command line."""
        options = {"ratel": "ratel", "output": Path("out"), "models": Path("no-models"), "device": None}
        options |= {"torch_device": None, "compile_mode": None, "stable_diffusion_cpp": "sd-cli", "smoke": False}
        return gpu_parts.plan(argparse.Namespace(**(options | dict.fromkeys(words, True))))

    def test_needs_come_before_and_names_are_files(self):
        for words in ((), ("smoke",)):
            every = self.plan(*words)
            names = [part.name for part in every]
            self.assertEqual(len(set(names)), len(names))
            for part in every:
                self.assertTrue(set(part.needs) <= set(names[: names.index(part.name)]), part.name)
                self.assertNotIn("/", part.name)
                self.assertTrue(all(isinstance(word, str) for word in part.command), part.name)

    def test_only_takes_what_it_needs_along(self):
        chosen = [part.name for part in script("gpu").chosen(self.plan(), ["sd15 bench"])]
        self.assertEqual(chosen, ["GPU", "PyTorch", "sd15 checkpoint", "sd15 bench", "sd15 bench tuned"])

    def test_a_software_driver_is_no_gpu(self):
        for kinds, is_right in (["software"], False), ([], False), (["software", "discrete GPU"], True):
            finished = children.Finished(json.dumps([{"kind": kind} for kind in kinds]), "", 0.1, 0, 0)
            with self.subTest(kinds), contextlib.nullcontext() if is_right else self.assertRaises(children.Failed):
                gpu_parts.check_gpu(finished)

    def test_stable_diffusion_cpp_without_vulkan_is_a_failure(self):
        device = "ggml_vulkan: 0 = A card | uma: 0\n"
        gpu_parts.check_stable_diffusion_cpp(children.Finished(SD_CPP, device, 0.1, 0, 0))
        with self.assertRaisesRegex(children.Failed, "Vulkan"):
            gpu_parts.check_stable_diffusion_cpp(children.Finished(SD_CPP, "", 0.1, 0, 0))


class Run(unittest.TestCase):
    """Parts that are run one after the other."""

    def setUp(self):
        self.gpu = script("gpu")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def main(self, ratel: str, *words: str) -> str:
        """Runs it with a program that is a shell script. Returns what it says."""
        program = self.folder / "ratel"
        program.write_text(f"#!/bin/sh\n{ratel}\n", encoding="utf-8")
        program.chmod(0o755)
        line = ["gpu", "--ratel", str(program), "-o", str(self.folder / "out"), *words]
        said = io.StringIO()
        making = mock.patch.object(gpu_parts, "MAKE_CHECKPOINT", Path("no-such-script.py"))
        pytorch = mock.patch.object(gpu_parts, "PYTORCH", "print('PyTorch')")
        # the test's own children are not to be ended as a program's are
        with mock.patch("sys.argv", line), making, pytorch, mock.patch.object(children, "end_with_children"):
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                self.gpu.main()
        return said.getvalue()

    def report(self) -> str:
        """The report."""
        return (self.folder / "out/report.md").read_text(encoding="utf-8")

    def test_a_failed_part_stops_only_what_needs_it(self):
        said = self.main("exit 7", "--smoke", "--only", "bench", "--only", "selftest")
        self.assertIn("sd15 bench: left out: it needs sd15 checkpoint", said)
        self.assertIn("sdxl-sized bench: left out", said)
        self.assertIn("selftest: exit status 7", said)
        self.assertIn("- sd15 checkpoint: exit status 2", self.report())

    def test_without_a_gpu_the_large_models_are_left_out(self):
        said = self.main("""echo '[{"kind": "software"}]'""", "--only", "roofline")
        self.assertIn("GPU: ratel finds only software", said)
        record = json.loads((self.folder / "out/parts/GPU.json").read_text(encoding="utf-8"))
        self.assertIn("software", record["output"])
        self.assertIn("roofline: left out: it needs GPU", said)

    def test_output_that_is_of_no_use_is_a_failure(self):
        said = self.main("echo of no use", "--smoke", "--only", "selftest", "--only", "roofline")
        self.assertIn("selftest: nothing of use in what it printed", said)
        self.assertIn("What is needed for roof could not be read", self.report())

    def test_goes_on_where_it_stopped(self):
        words = ("--smoke", "--only", "selftest")
        self.assertIn("selftest: exit status 7", self.main("exit 7", *words))
        self.assertNotIn("selftest:", self.main("exit 8", *words))
        said = self.main("""echo '{"rows": [], "cases": 1, "failed": 0}'""", *words, "--retry")
        self.assertRegex(said, r"selftest: \d")
        self.assertIn("1 of 1 cases", self.report())
        self.assertNotIn("selftest:", self.main("exit 8", *words, "--retry"))
        # another command is another part, and a file that was cut off is none
        self.assertIn("selftest: exit status 9", self.main("exit 9", *words, "--device", "x"))
        (self.folder / "out/parts/selftest.json").write_text('{"part": "selft', encoding="utf-8")
        self.assertIn("selftest: exit status 9", self.main("exit 9", *words))

    def test_a_full_disk_stops_nothing(self):
        with mock.patch.object(self.gpu, "keep", side_effect=OSError("no space")):
            said = self.main("exit 7", "--smoke", "--only", "selftest", "--only", "devices")
        self.assertIn("devices: not written: no space", said)
        self.assertIn("selftest: exit status 7", said)
        self.assertIn("Self-test: exit status 7", self.report())

    def test_ends_in_time(self):
        said = self.main("sleep 30", "--smoke", "--only", "selftest", "--within", "5")
        self.assertIn("selftest: not run: the time of --within is over", said)
        with mock.patch.object(self.gpu, "LEAST_SECONDS", 0.1):
            said = self.main("sleep 30", "--smoke", "--only", "selftest", "--within", "0.5")
        self.assertIn("selftest: stopped after 0 s", said)


class Report(unittest.TestCase):
    """What the parts printed, side by side."""

    RECORDS = {
        "sd15 bench": {"output": rows(4.0)},
        "sd15 bench tuned": {"output": rows(3.0)},
        "sd15 diffusers eager": {"output": '{"unet": [2.0, 2.1, 9.0], "vae": [3.0]}'},
        "sd15 diffusers compiled": {"error": "stopped after 1 s", "output": '{"unet": [1.5]}\n', "log": ""},
        "sd15 stable-diffusion.cpp": {"output": SD_CPP, "log": "ggml_vulkan: 0 = A card | uma: 0\n"},
        "sd15 profile": {"output": PROFILE},
        "sdxl-sized bench": {"error": "exit status 1", "output": "", "log": ""},
        "PyTorch": {"output": "PyTorch 9, diffusers 9, A card\n"},
        "roofline": {"output": ROOFLINE},
    }

    def test_ratios_are_speeds(self):
        text = gpu_report.markdown(self.RECORDS)
        # 2.1 s against the 3 s of the faster one: Ratel is slower
        self.assertIn("| SD 1.5: guided step, times diffusers f16 eager | 1.0 | 1.7 | 0.70 | missed |", text)
        self.assertIn("| diffusers f16 eager | 2100.00 | 0.48 |  | 0.70 | 3000.00 | 0.50 |  |", text)
        self.assertIn("| Ratel, tuned | 3000.00 | 0.33 | 25.0% |  | 6000.00 |  |  |", text)
        fast = {**self.RECORDS, "sd15 bench tuned": {"output": rows(1.0)}}
        text = gpu_report.markdown(fast)
        self.assertIn("| SD 1.5: guided step, times diffusers f16 eager | 1.0 | 1.7 | 2.10 | met |", text)
        self.assertIn("| SD 1.5: guided step, times stable-diffusion.cpp | 3.0 |  | 3.50 | met |", text)

    def test_the_fastest_of_a_peer_counts(self):
        faster = SD_CPP.replace("8.00s", "2.00s").replace("6.00s", "2.00s").replace("5.00s", "2.00s")
        other = {"output": faster, "log": "ggml_vulkan: 0 = A card | uma: 0\n"}
        records = {**self.RECORDS, "sd15 stable-diffusion.cpp, flash attention": other}
        self.assertIn("stable-diffusion.cpp | 3.0 |  | 0.67 | missed |", gpu_report.markdown(records))

    def test_what_was_timed_before_a_failure_counts(self):
        self.assertIn("| diffusers f16 compiled | 1500.00 |", gpu_report.markdown(self.RECORDS))
        self.assertIn("- sd15 diffusers compiled: stopped after 1 s", gpu_report.markdown(self.RECORDS))

    def test_stable_diffusion_cpp_that_ended_early(self):
        log = "ggml_vulkan: 0 = A card | uma: 0\n"
        bars, decode = SD_CPP.split("[INFO ] stable-diffusion.cpp:3208")[0], "sampling using Euler method"
        cases = ((log, bars, {"unet": 3.5}), ("", bars, {}), (log, bars.split(decode)[0], {}))
        for log, output, found in cases:
            name = "sd15 stable-diffusion.cpp"
            record = {"error": "exit status -6", "output": output, "log": log}
            self.assertEqual(gpu_report.peer({name: record}, name), found)

    def test_what_is_missing_is_said(self):
        text = gpu_report.markdown(self.RECORDS)
        self.assertIn("| SDXL's size: guided step, times diffusers f16 eager | 0.7 | 1.0 |  | not known |", text)
        self.assertIn("Ratel: exit status 1; diffusers f16 eager: not run", text)
        self.assertIn("Self-test: not run.", text)
        self.assertIn("What the device reaches at best is not known: not run.", gpu_report.markdown({}))

    def test_one_part_that_cannot_be_read_loses_no_other(self):
        for name in self.RECORDS:
            for broken in ("", "[]", "{}", '{"rows": {}}', '{"rows": [{"test": "UNet step"}]}', "null"):
                with self.subTest(name=name, broken=broken):
                    records = {**self.RECORDS, name: {"output": broken, "log": ""}}
                    text = gpu_report.markdown(records)
                    json.dumps(gpu_report.plain(records))
                    if name != "roofline":
                        self.assertIn("| roof_copy | 128 MiB | 3000.0 GB/s | 1% |", text)
                        self.assertIn("| roof_fma | f32 | 60000.0 GFLOP/s | 1% |", text)
                    if name != "sd15 profile":
                        self.assertIn("| conv2d_coop | 3 |", text)

    def test_roof_by_class_and_by_kernel(self):
        text = gpu_report.markdown(self.RECORDS)
        # 3 ms at 50% and 1 ms at 10%
        self.assertIn("| conv | 6 | 4.00 | 80.0% | 1000.0 | 2.0 | 40.0% |", text)
        self.assertIn("| matmul | 3 | 1.00 | 20.0% | 1000.0 | 2.0 | 25.0% | compute | 0.75 |", text)

    def test_a_trial_says_nothing_of_targets(self):
        text = gpu_report.markdown(self.RECORDS, smoke=True)
        self.assertIn("the times say nothing", text)
        self.assertNotIn("missed", text)
        self.assertEqual(gpu_report.plain(self.RECORDS, smoke=True)["targets"], [])


if __name__ == "__main__":
    unittest.main()
