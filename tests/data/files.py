"""Writers of small files for the tests of this folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffeo.data import Data

DATA = Path(os.environ.get("DIFFEO_DATA") or "../shared/data")
ROWS = np.random.default_rng(0).normal(size=(40, 2))
BODY = "".join(f"{i},{i * i}\n" for i in range(12))


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"set DIFFEO_DATA to the folder that holds {name}"
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=reason)


def lengths(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


def rows(data: Data) -> torch.Tensor:
    return torch.cat((data.train, data.validation, data.test))


def npy(folder: Path, value: Any) -> Path:
    np.save(folder / "a.npy", value)
    return folder / "a.npy"


def npz(folder: Path, **values: Any) -> Path:
    np.savez(folder / "a.npz", **values)
    return folder / "a.npz"


def text(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(folder: Path, name: str = "a.parquet", **columns: Any) -> Path:
    import pyarrow
    from pyarrow import parquet as arrow

    arrow.write_table(pyarrow.table(columns), folder / name, row_group_size=15)
    return folder / name


def picture(folder: Path, name: str, pixels: Any, mode: str | None = None, **options: Any) -> Path:
    from PIL import Image

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def pictures(folder: Path, n: int = 12, height: int = 6, width: int = 4) -> Path:
    """Grey pictures, each different."""
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width), dtype=np.uint8)
        picture(folder, f"{i:03}.png", pixels)
    return folder
