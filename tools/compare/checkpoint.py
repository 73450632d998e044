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
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.unlink(missing_ok=True)
    subprocess.run([python, str(MAKE), *options, "-o", str(unfinished)], check=True)
    unfinished.rename(path)


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), sys.argv[2:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
