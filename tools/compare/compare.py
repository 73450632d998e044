"""Measures Ratel beside its peers, in rounds: in each, every engine runs once in a process of its own, so that what
drifts on the machine drifts for all.

    python compare.py ENGINES.json -o out/compare --rounds 3

ENGINES.json says what is compared (engines.py says how; engines.example.json is one). The checkpoints are made with
random weights where they are not there yet. Every measurement is kept in OUT/records.jsonl as soon as it is made; the
same command goes on after the last of them. At the end, and with --report-only from what there is, OUT/report.md and
OUT/report.json are written.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import checkpoint
import children
import engines
import report


def make_checkpoints(models: Path, python: str) -> tuple[Path, Path]:
    """The random-weight model of SD 1.5 as a folder in f32 and as a file in f16, made where it is missing."""
    folder, file = models / "sd15", models / "sd15-f16.safetensors"
    checkpoint.make(folder, ["--arch", "sd15", "--dtype", "f32"], python)
    checkpoint.make(file, ["--arch", "sd15", "--layout", "single", "--dtype", "f16"], python)
    return folder, file


def read_records(path: Path) -> list[dict]:
    """What was measured before."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def measure_all(every: list[engines.Engine], task: engines.Task, rounds: int, path: Path) -> None:
    """Appends what no record is of yet. An engine that failed is not tried again."""
    before = read_records(path)
    done = {(record["round"], record["engine"]) for record in before}
    failed = {record["engine"] for record in before if "error" in record}
    for number in range(rounds):
        for engine in every:
            if (number, engine.name) in done or engine.name in failed or (engine.once and number > 0):
                continue
            known = {"kind": engine.kind, "driver": engine.driver, "share": engine.share}
            record = {"round": number, "engine": engine.name, "pixels": task.pixels, **known}
            try:
                record |= asdict(engines.measure(engine, task))
                said = ", ".join(f"{part} {min(times):.2f} s" for part, times in record["seconds"].items())
            except children.Failed as failure:
                record["error"] = said = str(failure)
                failed.add(engine.name)
            print(f"round {number + 1}, {engine.name}: {said}", flush=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", type=Path, metavar="ENGINES.json")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the checkpoints are, or are made")
    parser.add_argument("--python", default=sys.executable, help="has torch and diffusers, to make the checkpoints")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=2, help="timed runs of a part in a process, after one to warm up")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a process may take")
    parser.add_argument("--only", action="append", metavar="NAME", help="engines whose name contains this")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    args = parser.parse_args()
    children.end_with_children()

    args.output.mkdir(parents=True, exist_ok=True)
    records = args.output / "records.jsonl"
    if not args.report_only:
        try:
            every = engines.read_engines(args.engines)
        except ValueError as error:
            parser.error(str(error))
        chosen = [e for e in every if args.only is None or any(part in e.name for part in args.only)]
        folder, file = make_checkpoints(args.models, args.python)
        task = engines.Task(folder, file, args.pixels, args.runs, args.limit)
        measure_all(chosen, task, args.rounds, records)
    found = read_records(records)
    if not found:
        parser.error(f"{records}: nothing was measured")
    title = f"Ratel and its peers: SD 1.5 with random weights, {found[0]['pixels']} px"
    (args.output / "report.md").write_text(report.markdown(title, found), encoding="utf-8")
    (args.output / "report.json").write_text(json.dumps(report.plain(title, found), indent=1) + "\n", encoding="utf-8")
    print(args.output / "report.md")


if __name__ == "__main__":
    main()
