"""The density-estimation suite of the MAF paper: POWER, GAS, HEPMASS and MINIBOONE, preprocessed as published.

Papamakarios, Pavlakou, Murray. Masked autoregressive flow for density estimation. 2017, arXiv:1705.07057. The
steps, their order and their random numbers are those of the authors' code, github.com/gpapamak/maf, datasets/; the
files are those of Zenodo record 1161203. The likelihood is of the noisy, standardized rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DataError
from .checks import Place, as_float32, check_columns, check_finite, listing
from .readers import read_npy, sentence
from .schema import Data
from .stream import read_table
from .suite_patches import load_bsds300

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SUITE = ("power", "gas", "hepmass", "miniboone", "bsds300")

_POWER = ("global_active_power", "voltage", *(f"sub_metering_{i}" for i in (1, 2, 3)), "time")
_CORRELATED = 0.98
_REPEATED = 5
_BLOCK = 2**16


def load_suite(name: str, folder: Path) -> Data:
    """A set of the suite from its folder. Raises DataError for a file that is missing or has another layout."""
    if name == "bsds300":
        return load_bsds300(folder)
    load = {"power": _power, "gas": _gas, "hepmass": _hepmass, "miniboone": _miniboone}[name]
    return load(folder)


def _power(folder: Path) -> Data:
    """POWER, 6 columns: household electricity by the minute, from data.npy [n, 8].

    Rows shuffled with RandomState(42); reactive power and intensity (columns 1 and 3) dropped; uniform noise on
    [0, 0.001) for active power, [0, 0.01) for voltage, [0, 1) for the three sub-meters; standardized by train and
    validation.
    """
    import numpy as np

    path = _published(folder, "data.npy")
    x = _matrix(path, 8)
    rng = np.random.RandomState(42)
    x = x[rng.permutation(len(x))][:, [0, 2, 4, 5, 6, 7]]
    # In the order in which the published code draws them: voltage, active power, sub-meters.
    for column, width in ((1, 0.01), (0, 0.001), (slice(2, 5), 1.0)):
        x[:, column] += width * rng.rand(*x[:, column].shape)
    return _standardized("power", path, *_split(x), _POWER)


def _gas(folder: Path) -> Data:
    """GAS, 8 columns: chemical sensors under ethylene and CO, from ethylene_CO.csv or .parquet (19 named columns).

    Time, Meth and Eth dropped; then, as long as two columns correlate by more than 0.98, the first of those that do;
    standardized by all rows, test rows included (as published), with the deviation over n - 1.
    """
    import numpy as np

    found = [folder / f"ethylene_CO.{kind}" for kind in ("csv", "parquet", "pickle")]
    path = next((file for file in found if file.exists()), found[-1])
    if path.suffix == ".pickle":
        _published(folder, path.name)
        raise DataError(
            f"{path} is a pickle, which can run any code and which diffeo never opens; convert it once: python -c "
            f"\"import pandas; pandas.read_pickle('{path.name}').to_csv('ethylene_CO.csv', index=False)\"."
        )
    table = read_table(path, None)
    names = list(table.columns or ())
    unused = ["Time", "Meth", "Eth"]
    if not set(unused) <= set(names):
        raise DataError(
            f"{path} has the columns {listing(names) or 'without names'}, expected {listing(unused)} and 16 sensors."
        )
    kept = [i for i, name in enumerate(names) if name not in unused]
    x = np.concatenate([block.values for block in table.blocks(0, _BLOCK)])[:, kept]
    check_finite(x, Place(str(path), 0, columns=tuple(names[i] for i in kept)))
    alike = np.corrcoef(x.T) > _CORRELATED
    left = list(range(len(kept)))
    while many := [i for i in left if alike[i, left].sum() > 1]:
        left.remove(many[0])
    columns = tuple(names[kept[i]] for i in left)
    x = x[:, left]
    check_columns(x, columns, str(path), _BLOCK)
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    return _data("gas", path, _split(x), columns)


def _hepmass(folder: Path) -> Data:
    """HEPMASS, 21 columns: simulated collisions, from 1000_train.csv and 1000_test.csv (label, then features).

    Rows of class 1; the last column of the test file, which the training file lacks, dropped; standardized by the
    training file (deviation over n - 1); features dropped whose smallest value is in the training rows more than 5
    times (the published code counts this value only); the last tenth of the training rows is the validation part.
    """
    import numpy as np

    path = _published(folder, "1000_train.csv")
    header = _header(path)
    train = _class_one(path, len(header))
    test = _class_one(_published(folder, "1000_test.csv"), len(header))
    repeats = (train == train.min(0)).sum(0)
    left = np.flatnonzero(repeats <= _REPEATED)
    names = tuple(header[1 + i] for i in left)
    train, test = train[:, left], test[:, left]
    check_columns(train, names, str(path), _BLOCK)
    mean, std = train.mean(0), train.std(0, ddof=1)
    train, test = (train - mean) / std, (test - mean) / std
    n = len(train) - _tenth(train)
    return _data("hepmass", path, (train[:n], train[n:], test), names)


def _miniboone(folder: Path) -> Data:
    """MINIBOONE, 43 columns: electron neutrinos, from data.npy [n, 43], standardized by train and validation.

    The published file is preprocessed: without rows whose first feature is below -100, without features that repeat.
    """
    path = _published(folder, "data.npy")
    return _standardized("miniboone", path, *_split(_matrix(path, 43)))


def _published(folder: Path, name: str) -> Path:
    """A file of the release. Raises DataError where it is missing."""
    path = folder / name
    if not path.is_file():
        raise DataError(
            f"there is no file {path}, which the data set {folder.name!r} needs: it is {folder.name}/{name} of "
            "data.tar.gz in the MAF release, https://zenodo.org/record/1161203; set DIFFEO_DATA to the folder that "
            f"holds {folder.name}."
        )
    return path


def _matrix(path: Path, width: int) -> Array:
    """A copy of an array [n, width] in float64."""
    import numpy as np

    x = read_npy(path)
    if x.ndim != 2 or x.shape[1] != width or x.dtype.kind not in "iuf":
        raise DataError(
            f"{path} holds {x.dtype} of the shape {list(x.shape)}, expected real numbers [n, {width}]."
        )
    check_finite(x, Place(str(path), 0))
    return np.array(x, dtype=np.float64)


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            cells = [cell.strip() for cell in file.readline().split(",")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {sentence(error)}") from error
    if len(cells) < 2:
        raise DataError(
            f"{path} begins with {cells[0][:40]!r}, expected a header: the label and the features."
        )
    return cells


def _class_one(path: Path, width: int) -> Array:
    """The features of the rows with the label 1; cells after the first `width` are not read."""
    import numpy as np

    try:
        x = np.loadtxt(
            path, delimiter=",", skiprows=1, usecols=range(width), comments=None, ndmin=2
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no table of numbers: {sentence(error)}") from error
    check_finite(x, Place(str(path), 0))
    features: Array = x[x[:, 0] == 1, 1:]
    if len(features) < 2 * _REPEATED:
        raise DataError(f"{path} has {len(features)} rows of class 1, expected at least 10.")
    return features


def _tenth(x: Array) -> int:
    return int(0.1 * len(x))


def _split(x: Array) -> tuple[Array, Array, Array]:
    """The last tenth for test, and the last tenth of the rest for validation."""
    x, test = x[: len(x) - _tenth(x)], x[len(x) - _tenth(x) :]
    return x[: len(x) - _tenth(x)], x[len(x) - _tenth(x) :], test


def _standardized(
    name: str,
    path: Path,
    train: Array,
    validation: Array,
    test: Array,
    columns: tuple[str, ...] | None = None,
) -> Data:
    import numpy as np

    both = np.concatenate((train, validation))
    check_columns(both, columns, str(path), _BLOCK)
    mean, std = both.mean(0), both.std(0)
    parts = [(part - mean) / std for part in (train, validation, test)]
    return _data(name, path, parts, columns)


def _data(name: str, path: Path, parts: Sequence[Array], columns: tuple[str, ...] | None) -> Data:
    if not all(map(len, parts)):
        rows = sum(map(len, parts))
        raise DataError(f"{path} has {rows} rows, expected at least 10 for each of three parts.")
    place = Place(str(path), 0, columns=columns)
    train, validation, test = (torch.from_numpy(as_float32(part, place)) for part in parts)
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        levels=None,
        columns=columns,
        labels=None,
        density=None,
        source=f"{path.parent}: preprocessed as in the MAF paper, its split",
    )
