"""Models of names, of words and of common passwords, into results/strings.json.

    DIFFEO_DATA=... python scripts/strings.py [ROW ...] [--scale 0.01]

A row is a model on a data set, trained for some minutes on one core and measured on held-out strings: bits per string
and per symbol (the characters and the end), beside n-gram models with interpolated Kneser-Ney smoothing. The row
`passwords` also compares strengths with zxcvbn's guesses. What is stored is not repeated. --scale: of the minutes, to
try the script. Nothing is stored of the passwords but numbers: the list holds rude words.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stored import provenance, read, write

PASSWORDS = "common_passwords_django.txt.gz"
LONGEST = 16
SAMPLES, DRAWS, SHOWN = 2000, 64, 24
DISCOUNTS = (0.5, 0.6, 0.7, 0.8, 0.9)
BOOTSTRAPS = 200
TRAINING = {
    "threads": 1,
    "batch_size": 128,
    "lr": 2e-3,
    "clip": 1.0,
    "ema": 0.99,
    "validate_every": 100,
}
SMALL = {"width": 128, "blocks": 2, "couplings": 8}
# Data, settings of the model, minutes.
ROWS: dict[str, tuple[str, dict[str, Any], float]] = {
    "names, categorical": ("names", {"width": 64, "dropout": 0.1}, 6),
    "names, mixture, uniform": ("names", SMALL | {"layer": "mixture"}, 4),
    "names, mixture, variational": (
        "names",
        SMALL | {"layer": "mixture", "dequantization": "variational"},
        4,
    ),
    "names, affine, uniform": ("names", SMALL | {"layer": "affine", "couplings": 18}, 4),
    "words, categorical": ("words", {"dropout": 0.05}, 20),
    "passwords, categorical": ("passwords", {"width": 64}, 10),
}
Score = Callable[[str], float]
Smoothed = Callable[[str, float], float]


def kneser_ney(train: Sequence[str], order: int, symbols: int) -> Smoothed:
    """Bits of a string and its end by a discount d: P(w | c) = (n - d)+ / N + d T / N P(w | c'), as Kneser and Ney.

    n counts occurrences in the longest contexts, and different predecessors in shorter ones; T is the number of
    different w after c, and c' is c without its first symbol. Kneser and Ney, 1995; Chen and Goodman, 1999.
    """
    counts: list[dict[str, dict[str, int]]] = [defaultdict(lambda: defaultdict(int)) for _ in range(order)]  # fmt: skip
    for string in train:
        padded = "\0" * (order - 1) + string + "\n"
        for i in range(order - 1, len(padded)):
            for k in range(order - 1, -1, -1):
                here = counts[k][padded[i - k : i]]
                new = padded[i] not in here
                here[padded[i]] += 1
                # Shorter contexts count what was new in the next longer one.
                if not new:
                    break
    totals = [{c: (sum(h.values()), len(h)) for c, h in level.items()} for level in counts]

    def bits(string: str, discount: float) -> float:
        padded = "\0" * (order - 1) + string + "\n"
        total = 0.0
        for i in range(order - 1, len(padded)):
            p = 1 / symbols
            for k in range(order):
                context = padded[i - k : i]
                if context in totals[k]:
                    n, kinds = totals[k][context]
                    found = counts[k][context].get(padded[i], 0)
                    p = max(found - discount, 0) / n + discount * kinds / n * p
            total -= math.log2(p)
        return total

    return bits


def best_kneser_ney(parts: dict[str, list[str]], order: int, symbols: int) -> tuple[Score, float]:
    """That with the discount that is best on the validation part."""
    score = kneser_ney(parts["train"], order, symbols)
    some = parts["validation"][:2000]
    chosen = min(DISCOUNTS, key=lambda d: sum(score(s, d) for s in some))
    return partial(score, discount=chosen), chosen


def means(bits: Sequence[float], strings: Sequence[str]) -> dict[str, float]:
    """Bits per string and per symbol, the end being one, with standard errors; of a ratio by the delta method."""
    import numpy as np

    each, symbols = np.array(bits), np.array([len(s) + 1 for s in strings])
    ratio = each.sum() / symbols.sum()
    root = len(each) ** 0.5
    return {
        "bits": float(each.mean()),
        "bits_error": float(each.std(ddof=1) / root),
        "per_symbol": float(ratio),
        "per_symbol_error": float((each - ratio * symbols).std(ddof=1) / root / symbols.mean()),
    }


def load(name: str) -> Any:
    """The data of a name; of the passwords, those of at most LONGEST characters."""
    import diffeo
    from diffeo.data.datasets import _data_folder
    from diffeo.data.strings import read_lines

    if name != "passwords":
        return diffeo.data.load(name)
    kept = [s for _, s in read_lines(_data_folder() / "strings" / PASSWORDS) if len(s) <= LONGEST]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passwords.txt"
        path.write_text("\n".join(kept) + "\n")
        return diffeo.data.load(path)


def parts_of(data: Any) -> dict[str, list[str]]:
    from diffeo.data.strings import Strings

    strings = Strings(data.alphabet, data.event_shape[0])
    return {part: strings.decode(getattr(data, part)) for part in ("train", "validation", "test")}


def baselines(data: Any) -> dict[str, dict[str, Any]]:
    """Uniform symbols, unigrams, and n-grams."""
    parts = parts_of(data)
    test = parts["test"]
    flat = [(len(s) + 1) * math.log2(data.levels) for s in test]
    found: dict[str, dict[str, Any]] = {"uniform": means(flat, test)}
    for name, order in (("unigram", 1), ("3-gram", 3), ("5-gram", 5)):
        score, discount = best_kneser_ney(parts, order, data.levels)
        found[name] = means([score(s) for s in test], test) | {"discount": discount}
    return found


def train(name: str, data: Any, scale: float) -> tuple[Any, dict[str, Any]]:
    import torch

    import diffeo

    _, hyper, minutes = ROWS[name]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    levels = {"levels": data.levels, "alphabet": data.alphabet}
    flow = diffeo.zoo.build("passflow", data.event_shape, **levels, **hyper)
    run = diffeo.fit(flow, data, minutes=minutes * scale, progress=False, seed=0, **TRAINING)
    keys = ("seconds", "steps", "best_step")
    facts = {k: round(run.metrics[k], 1) for k in keys if k in run.metrics}
    settings = {"hyper": hyper, "training": TRAINING | {"minutes": minutes * scale, "seed": 0}}
    return flow, facts | settings | {"parameters": flow.num_parameters, "stopped": run.stopped}


def measure(name: str, scale: float) -> dict[str, Any]:
    """A row: likelihood of the held-out strings, samples, and of passwords the strengths."""
    import torch

    from diffeo.applications.strength import code_log_prob
    from diffeo.data.strings import Strings, well_formed

    source = ROWS[name][0]
    data = load(source)
    flow, row = train(name, data, scale)
    codes, test = data.test, parts_of(data)["test"]
    row |= {"data": data.source.split("; ", 1)[1], "strings": len(test)}
    row["symbols"] = data.levels
    log_p, noise = code_log_prob(flow, codes, draws=DRAWS)
    exact = flow.likelihood == "exact"
    row["kind"] = "exact" if exact else f"importance-weighted bound, K = {DRAWS}"
    row |= means((-log_p / math.log(2)).tolist(), test)
    if not exact:
        once = code_log_prob(flow, codes, draws=1)[0]
        row["one_draw"] = means((-once / math.log(2)).tolist(), test)
        row["noise_bits"] = float(noise.mean()) / math.log(2)
    drawn = flow.sample(SAMPLES, generator=torch.Generator().manual_seed(0), batch_size=1000)
    well = well_formed(drawn)
    row["ill_formed"] = float((~well).double().mean())
    if source == "passwords":
        return row | passwords(flow, data, scale)
    strings = Strings.of(flow).decode(drawn[well])
    known = set(parts_of(data)["train"])
    row["known"] = sum(s in known for s in strings) / len(strings)
    row["samples"] = [s for s in strings if s and s not in known][:SHOWN]
    return row


def passwords(flow: Any, data: Any, scale: float) -> dict[str, Any]:
    """Rank correlation with zxcvbn on held-out strings, and how well each tells them from random ones."""
    import numpy as np
    import torch
    from sklearn.metrics import roc_auc_score
    from zxcvbn import zxcvbn

    from diffeo.applications.strength import strength

    parts = parts_of(data)
    test = parts["test"] if scale >= 1 else parts["test"][:200]
    found = strength(flow, test, samples=10_000 if scale >= 1 else 500)
    judged = [zxcvbn(s) for s in test]
    guesses = np.array([float(j["guesses_log10"]) for j in judged])
    scores = np.array([j["score"] for j in judged])
    five = best_kneser_ney(parts, 5, data.levels)[0]
    grams = np.array([five(s) for s in test])
    lengths = np.array([len(s) for s in test])
    bits = found.bits.numpy()
    pairs = {
        "flow, zxcvbn's guesses": (bits, guesses),
        "flow, zxcvbn's score": (bits, scores),
        "5-gram, zxcvbn's guesses": (grams, guesses),
        "length, zxcvbn's guesses": (lengths, guesses),
        "flow, 5-gram": (bits, grams),
    }
    rng = np.random.default_rng(0)
    characters = list(data.alphabet)
    random = ["".join(rng.choice(characters, len(s))) for s in test]
    noise = strength(flow, random, samples=10)
    others = np.array([float(zxcvbn(s)["guesses_log10"]) for s in random])
    labels = np.repeat([0, 1], len(test))
    finite = found.high.isfinite()
    return {
        "judged": len(test),
        "correlations": {k: correlation(*pair) for k, pair in pairs.items()},
        "scores": {
            str(s): [int((scores == s).sum()), float(np.median(bits[scores == s]))]
            for s in sorted(set(scores.tolist()))
        },
        "auc": {
            "flow": float(roc_auc_score(labels, np.concatenate([bits, noise.bits.numpy()]))),
            "zxcvbn": float(roc_auc_score(labels, np.concatenate([guesses, others]))),
        },
        "rank_median": float(found.rank.median()),
        "rank_width": float((found.high / found.low)[finite & (found.low > 0)].median()),
        "rank_open": float((~finite).double().mean()),
        "torch_seed": torch.initial_seed(),
    }


def correlation(a: Any, b: Any) -> dict[str, float]:
    """Spearman's rho and Kendall's tau-b with bootstrap standard errors."""
    import numpy as np
    from scipy.stats import kendalltau, spearmanr

    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(a), len(a)) for _ in range(BOOTSTRAPS)]
    out = {}
    for name, statistic in (("spearman", spearmanr), ("kendall", kendalltau)):
        out[name] = float(statistic(a, b)[0])
        out[f"{name}_error"] = float(np.std([statistic(a[r], b[r])[0] for r in rows], ddof=1))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="default: all")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--name", default="strings", help="of the file in results")
    arguments = parser.parse_args()
    for name in arguments.rows or list(ROWS):
        document = read(arguments.name)
        source = ROWS[name][0]
        if source not in document.get("baselines", {}):
            found = document.get("baselines", {}) | {source: baselines(load(source))}
            document |= {"baselines": found}
        if name not in document.get("rows", {}):
            row = measure(name, arguments.scale)
            document |= {"rows": document.get("rows", {}) | {name: row}}
            shown = {k: v for k, v in row.items() if isinstance(v, float | int | str)}
            print(name, shown, flush=True)
        write(arguments.name, document | provenance("python scripts/strings.py"))


if __name__ == "__main__":
    main()
