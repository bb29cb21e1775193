"""Tables of scripts/translating.py, from what it stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from measured_images import MISSING, lines

Found = Mapping[str, Any]


def likelihood(found: Found) -> str:
    """Bits/dim of the truth given its own context, another one, and nothing."""
    names = {
        "given": "given its own",
        "shuffled": "given that of another picture",
        "twin": "a twin that is given nothing",
    }
    rows = [("the truth", "bits/dim", "more than given its own")]
    for key, shown in names.items():
        gap = found["likelihood"].get(f"{key}_gap")
        rows.append(
            (shown, number(found["likelihood"][key], 3), "–" if gap is None else number(gap, 3))
        )
    note = (
        f"{found['pictures']} test pictures of {found['levels']} levels; {found['parameters']:,} parameters and "
        f"{found['steps']:,} steps in {found['seconds'] / 60:.0f} minutes, the twin {found['twin_parameters']:,} and "
        f"{found['twin_steps']:,}."
    )
    return f"{lines(rows)}\n\n{note}"


def samples(found: Found) -> str:
    """PSNR of baselines and samples, their distance and their consistency."""
    rows = [
        ("picture", "PSNR to the truth, dB", "between two samples", "PSNR of what was given, dB")
    ]
    for name, value in found["baselines"].items():
        rows.append((name, number(value, 2), "–", "–"))
    for t, of in found["samples"].items():
        if not float(t):
            rows.append(
                ("temperature 0", number(of["sample"], 2), "–", number(of["consistency"], 1))
            )
            continue
        told = (number(of[k], digits) for k, digits in (("distance", 1), ("consistency", 1)))
        rows.append((f"one sample, temperature {t}", number(of["sample"], 2), *told))
        rows.append((f"mean of 16, temperature {t}", number(of["mean"], 2), "–", "–"))
    return lines(rows)


def number(value: Mapping[str, float], digits: int) -> str:
    return f"{value['mean']:.{digits}f} ± {value['error']:.{digits}f}"


TABLES = {"likelihood": likelihood, "samples": samples}


def translating(document: Found | None, arguments: str) -> str:
    """`<!-- translating samples faces -->`."""
    kind, task = arguments.split()
    found = (document or {}).get(task)
    return TABLES[kind](found) if found else MISSING
