"""Tables of scripts/editing.py, from what it stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from measured_images import MISSING, lines

Found = Mapping[str, Any]

# A class, what the sum of the pixels is called, and its unit.
WORDS = {
    "digits": ("zero", "thickness", "ink, full pixels"),
    "mnist": ("zero", "thickness", "ink, full pixels"),
    "faces": ("glasses", "brightness", "full pixels"),
}


def temperatures(found: Found) -> str:
    """Likelihood and spread of samples by temperature."""
    rows = found["temperatures"]
    return _across(
        ("temperature", [f"{r['temperature']:g}" for r in rows]),
        ("bits/dim of the samples", [f"{r['bits']:.2f}" for r in rows]),
        ("mean distance of two samples", [f"{r['distance']:.0f}" for r in rows]),
    )


def paths(found: Found) -> str:
    """Likelihood along paths between two pictures."""
    ways = {"pixels": "pixels blended", "linear": "linear", "spherical": "spherical"}
    rows = [("path", "bits/dim inside", "in the middle")]
    for name, shown in ways.items():
        way = found["paths"][name]
        middle = way["along"][len(way["along"]) // 2]
        rows.append((shown, f"{way['inside']:.3f} ± {way['error']:.3f}", f"{middle:.3f}"))
    return lines(rows)


def attributes(found: Found, data: str) -> str:
    """What a classifier sees when an attribute is moved."""
    moved, more = found["attributes"]["class"], found["attributes"]["ink"]
    target, amount, unit = WORDS[data]
    return _across(
        ("strength", [f"{r['strength']:g}" for r in moved]),
        (f"*{target}*: seen as such", [f"{100 * r['class']:.0f} %" for r in moved]),
        (f"*{target}*: {unit}", [f"{r['ink']:.1f}" for r in moved]),
        (f"*{amount}*: {unit}", [f"{r['ink']:.1f}" for r in more]),
        (f"*{amount}*: class kept", [f"{100 * r['class_kept']:.0f} %" for r in more]),
    )


def levels(found: Found) -> str:
    """How often the class stays with a fraction of the latents."""
    rows = found["levels"]
    return _across(
        ("latents kept", [f"{100 * r['fraction']:g} %" for r in rows]),
        *(
            (f"class kept, the {kind}st", [f"{100 * r[kind]:.0f} %" for r in rows])
            for kind in ("coarse", "fine")
        ),
    )


TABLES: dict[str, Callable[[Found], str]] = {
    "temperatures": temperatures,
    "paths": paths,
    "levels": levels,
}


def editing(document: Found | None, arguments: str) -> str:
    """`<!-- editing levels digits -->`."""
    kind, data = arguments.split()
    found = (document or {}).get(data)
    if not found:
        return MISSING
    return attributes(found, data) if kind == "attributes" else TABLES[kind](found)


def _across(*rows: tuple[str, Sequence[str]]) -> str:
    """A table whose first row is its head."""
    return lines([(name, *values) for name, values in rows])
