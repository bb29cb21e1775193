"""Peak memory of training on a table of 20 mixed columns, and of sampling one, into results/large_tables.json.

`python scripts/large_tables.py [--rows 1000000]`: writes csv files of a hundredth, a quarter and all of these rows,
runs `diffeo train tabular` (300 steps), `diffeo sample` (as many rows) and `diffeo score` on each, and stores for every
process the peak of its resident memory and, on Linux, of its private memory alone, looked at every 20 ms, in MB; its
wall time; and the size of the file. Pages of mapped files are resident but not private: the system takes them back when
it needs room. About 25 minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from stored import provenance, write

BLOCK = 50_000
EVERY = 0.02
PARTS = {"small": 100, "middle": 4, "large": 1}
SCHEMA = "rate: {kind: bounded, low: 0, high: 1}\nangle: {period: 360}\nprice: positive\n"


def write_table(path: Path, rows: int) -> None:
    """20 columns: 8 real, 4 integer, 4 categorical, 1 positive, 1 bounded, 1 circular, 1 date; a tenth of 4 missing."""
    names = [f"x{i}" for i in range(8)] + [f"n{i}" for i in range(4)] + [f"c{i}" for i in range(4)]
    names += ["price", "rate", "angle", "day"]
    g = np.random.default_rng(0)
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            common = g.normal(size=n)
            columns = [np.char.mod("%.4f", common + g.normal(size=n)) for _ in range(8)]
            columns += [np.char.mod("%d", g.poisson(np.exp(0.5 * common + i))) for i in range(4)]
            columns += [
                np.array(list("abcdefgh"))[np.clip(common * (i + 1) + 4, 0, 7).astype(int)]
                for i in range(4)
            ]
            columns += [
                np.char.mod("%.2f", np.exp(common) + 0.01),
                np.char.mod("%.4f", 1 / (1 + np.exp(-common))),
                np.char.mod("%.1f", (90 + 40 * common) % 360),
                (np.datetime64("2020-01-01") + g.integers(0, 1500, n)).astype(str),
            ]
            for i in (0, 8, 12, 16):
                columns[i] = np.where(g.random(n) < 0.1, "", columns[i])
            file.writelines(",".join(cells) + "\n" for cells in zip(*columns, strict=True))


def private(pid: int) -> float | None:
    """Resident memory of a process that is of no file, in MB; None where that is not known."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(found[0]) / 1e3 if found else None


def measured(arguments: list[str]) -> dict[str, float | None]:
    """Peak memory and wall time of a command of its own."""
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "diffeo", *arguments], stdout=subprocess.DEVNULL
    )
    peak: float | None = None
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        now = private(child.pid)
        peak = peak if now is None else max(now, peak or 0.0)
        time.sleep(EVERY)
    child.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"diffeo {' '.join(arguments)} ended with {child.returncode}")
    factor = 1e6 if sys.platform == "darwin" else 1e3
    seconds = time.monotonic() - start
    return {"megabytes": usage.ru_maxrss / factor, "private": peak, "seconds": seconds}


def run(rows: int, folder: Path, steps: int) -> dict[str, Any]:
    """Train, sample and score at one size."""
    table, schema, out = folder / "table.csv", folder / "schema.yaml", folder / "run"
    write_table(table, rows)
    schema.write_text(SCHEMA)
    made = ["--data", str(table), "--schema", str(schema), "--size", "small"]
    found: dict[str, Any] = {"rows": rows, "file_megabytes": table.stat().st_size / 1e6}
    made += ["--threads", "1", "--quiet", "--out", str(out), "--batch-size", "256"]
    made += ["--steps", str(steps), "training.validate_rows=2000"]
    found["train"] = measured(["train", "tabular", *made])
    synthetic = folder / "synthetic.csv"
    found["sample"] = measured(["sample", str(out), "--rows", str(rows), "--out", str(synthetic)])
    found["score"] = measured(["score", str(out), str(table), "--out", str(folder / "scores.csv")])
    with synthetic.open("rb") as file:
        found["synthetic_rows"] = sum(1 for _ in file) - 1
    return found


def main() -> None:
    """Measure every part of the rows, and store what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=300, help="fewer, to try the script")
    arguments = parser.parse_args()
    rows = arguments.rows
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {}
    for name, part in PARTS.items():
        folder = Path(tempfile.mkdtemp())
        os.environ["DIFFEO_CACHE"] = str(folder / "cache")
        try:
            found[name] = run(max(1000, rows // part), folder, arguments.steps)
            print(name, found[name], flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    document = provenance(f"python scripts/large_tables.py --rows {rows}") | found
    write("large_tables", document)


if __name__ == "__main__":
    main()
