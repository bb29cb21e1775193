"""A folder for what was read once: built under a temporary name and renamed, found again by a key."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError


def cache_folder() -> Path:
    """$DIFFEO_CACHE, or the platform's folder for caches."""
    given = os.environ.get("DIFFEO_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffeo"


def cache_path(name: str, key: Any) -> Path:
    """The folder of this key (plain values), which may not be there yet."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / f"{name}-{digest}"


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Build a folder whole or not at all. Raises DataError where it cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        build(temporary)
        os.chmod(temporary, 0o755)
        try:
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"the folder {folder} for data larger than memory cannot be written: {error.strerror}; "
        "set DIFFEO_CACHE to a folder with room."
    )
