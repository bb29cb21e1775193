"""Score and draw ten million rows with both engines: rows per second, peak memory, and whether the rows are the same.

python scripts/score_ten_million.py [--rows 10000000] [--keep-in FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

COLUMNS = tuple("abcdefgh")
WORK = """
import json, sys, time
import diffeo
from diffeo.applications import Reading, sample_table, score_table
what, engine, folder, rows, out = sys.argv[1:]
flow = diffeo.load(folder + "/model")
start = time.monotonic()
if what == "score":
    table = folder + "/rows.parquet"
    score_table(flow, table, out, reading=Reading(columns=tuple("abcdefgh")), engine=engine)
else:
    sample_table(flow, int(rows), out, columns=tuple("abcdefgh"), seed=1, engine=engine)
print(json.dumps({"seconds": time.monotonic() - start}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--keep-in", type=Path, default=None, help="leave data and results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep_in or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, options.rows)
        print(json.dumps(measure(folder, options.rows), indent=1))


def make(folder: Path, rows: int) -> None:
    """A table of correlated columns, and a Real NVP with random weights for it."""
    import numpy as np
    import pyarrow
    import torch
    from pyarrow.parquet import ParquetWriter

    import diffeo
    from diffeo.testing import randomize

    torch.manual_seed(0)
    flow = diffeo.zoo.build("realnvp", (len(COLUMNS),), size="tiny")
    randomize(flow, seed=0, scale=0.1).eval().save(folder / "model")
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 8)).astype(np.float32) / 3
    writer = None
    for start in range(0, rows, 2**17):
        x = rng.normal(size=(min(2**17, rows - start), 8)).astype(np.float32) @ mix
        table = pyarrow.table({name: x[:, i] for i, name in enumerate(COLUMNS)})
        writer = writer or ParquetWriter(folder / "rows.parquet", table.schema)
        writer.write_table(table)
    writer.close()


def measure(folder: Path, rows: int) -> dict:
    """Each job in a process of its own."""
    result = {"rows": rows, "columns": 8, "cores": os.cpu_count(), "machine": platform.machine()}
    result["table bytes"] = (folder / "rows.parquet").stat().st_size
    for what in ("score", "sample"):
        outs = {}
        for engine in ("local", "ray"):
            out = outs[engine] = folder / f"{what}-{engine}.parquet"
            args = [sys.executable, "-c", WORK, what, engine, str(folder), str(rows), str(out)]
            process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
            peaks = watched(process)
            seconds = json.loads(process.stdout.read().splitlines()[-1])["seconds"]
            found = {
                "seconds": round(seconds, 1),
                "rows per second": round(rows / seconds),
                **peaks,
            }
            result[f"{what}, {engine}"] = found
            print(f"{what}, {engine}: {found}", file=sys.stderr, flush=True)
        result[f"{what}, largest difference"] = difference(*outs.values())
    return result


def watched(process: subprocess.Popen) -> dict:
    """Peak memory in MiB: the process itself (RSS), and all its processes together (PSS: shared pages once)."""
    peaks = {"peak RSS of the process, MiB": 0, "peak PSS of all processes, MiB": 0}

    def look() -> None:
        while process.poll() is None:
            tree = descendants(process.pid)
            own = memory(process.pid, "status", "VmHWM")
            everything = sum(memory(pid, "smaps_rollup", "Pss") for pid in tree)
            for key, value in zip(peaks, (own, everything), strict=True):
                peaks[key] = max(peaks[key], round(value / 1024))
            time.sleep(0.5)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return peaks


def memory(pid: int, file: str, key: str) -> int:
    """An entry of /proc in KiB."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def descendants(root: int) -> list[int]:
    """The process and all that it started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents[int(entry.name)] = memory(int(entry.name), "status", "PPid")
    tree, new = [], [root]
    while new:
        tree += new
        new = [pid for pid, parent in parents.items() if parent in new]
    return tree


def difference(a: Path, b: Path) -> float:
    """The largest difference of two tables of the same shape."""
    import numpy as np
    from pyarrow.parquet import ParquetFile

    largest = 0.0
    with ParquetFile(a) as first, ParquetFile(b) as second:
        assert first.schema_arrow == second.schema_arrow
        assert first.metadata.num_rows == second.metadata.num_rows
        pairs = zip(first.iter_batches(2**16), second.iter_batches(2**16), strict=True)
        for x, y in pairs:
            for p, q in zip(x.columns, y.columns, strict=True):
                gap = np.abs(p.to_numpy().astype(float) - q.to_numpy().astype(float))
                largest = max(largest, float(gap.max()))
    return largest


if __name__ == "__main__":
    main()
