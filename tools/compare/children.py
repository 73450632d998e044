"""Runs a program and watches what it costs: time, memory of its own, memory shared with files."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
END_SECONDS = 20


@dataclass(frozen=True)
class Finished:
    """A program that ended well. output: what it wrote to stdout; log: to stderr. peak_bytes: the most that was
    resident. peak_private_bytes: the most of that which no file backs, so without a checkpoint that is mapped; 0 where
    the system does not tell."""

    output: str
    log: str
    seconds: float
    peak_bytes: int
    peak_private_bytes: int


class Failed(Exception):
    """A program that could not be run, ended badly, or was stopped at its limit; the message is one line, with the last
    that it wrote."""

    def __init__(self, why: str, output: str = "", log: str = "") -> None:
        super().__init__(f"{why}; {last_line(log) or last_line(output)}".removesuffix("; "))
        self.output = output
        self.log = log


def end_with_children() -> None:
    """From now on a request to terminate, or a terminal that is closed, ends the program that is being run, too. Under
    nohup the latter stays ignored."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: sys.exit("the terminal was closed"))


def end(child: subprocess.Popen) -> bool:
    """Ends a program and what it started, such as compilers. Whether it is gone: where a driver hangs, even a program
    that is killed stays, and is not waited for."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except OSError:  # nothing of it is left
        pass
    try:
        child.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def resident(process: int) -> tuple[int, int]:
    """Bytes resident, and those of them that no file backs; zeros once the process is gone and without /proc."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    sizes = {key: value for key, _, value in (line.partition(":") for line in lines)}
    kib = [int(sizes.get(key, "0 kB").split()[0]) for key in ("VmRSS", "RssAnon", "RssShmem")]
    return 1024 * kib[0], 1024 * (kib[1] + kib[2])


def run(command: list[str], limit: float, environment: dict[str, str] | None = None) -> Finished:
    """Runs a command for at most `limit` seconds. Raises Failed."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        begun = time.monotonic()
        try:
            variables = {**os.environ, **(environment or {})}
            files = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
            # in a session of its own, so that what it starts can be ended with it
            child = subprocess.Popen(command, **files, env=variables, start_new_session=True)
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from error
        peaks, over, is_gone = [0, 0], threading.Event(), True

        def watch() -> None:
            while not over.wait(POLL_SECONDS):
                peaks[:] = map(max, peaks, resident(child.pid))

        watcher = threading.Thread(target=watch, daemon=True)
        try:
            watcher.start()
            status = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            is_gone = end(child)
            over.set()
            watcher.join()
        seconds = time.monotonic() - begun
        output, log = (text(file) for file in (stdout, stderr))
    if status is None:
        raise Failed(f"stopped after {limit:.0f} s{'' if is_gone else ', and does not end'}", output, log)
    if status != 0:
        raise Failed(f"exit status {status}", output, log)
    return Finished(output, log, seconds, *peaks)


def text(file) -> str:
    """All that was written to a file."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def last_line(output: str) -> str:
    """The last line that says anything, or nothing."""
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:4000] if lines else ""
