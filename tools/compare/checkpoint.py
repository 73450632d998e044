"""Makes a random-weight checkpoint that is there either whole or not at all.

    python checkpoint.py PATH --arch sd15 --layout single --dtype f16

The options are those of tools/reference/make_checkpoint.py; nothing is done where PATH is there.
"""

import shutil
import subprocess
import sys
from pathlib import Path

MAKE = Path(__file__).resolve().parent.parent / "reference/make_checkpoint.py"


def make(path: Path, options: list[str], python: str = sys.executable) -> None:
    """Makes it by a Python that has torch and diffusers. Raises subprocess.CalledProcessError."""
    if path.exists():
        return
    unfinished = path.with_name(f"unfinished-{path.name}")
    remove(unfinished)
    try:
        subprocess.run([python, str(MAKE), *options, "-o", str(unfinished)], check=True)
    except subprocess.CalledProcessError:
        remove(unfinished)  # it may be what fills the disk
        raise
    unfinished.rename(path)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.is_dir():
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), sys.argv[2:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
