"""Write constraints.txt: the versions, in this environment, of all that `.[test,docs]` brings in.

    .venv/bin/python scripts/pin.py > constraints.txt

It walks the dependencies from pyproject.toml, so a package that is only by chance in the environment is
not pinned. A pin that an older supported Python cannot install carries a marker, so that there pip
chooses within the ranges of pyproject.toml.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    sys.exit("scripts/pin.py needs Python 3.11 or newer")

EXTRAS = ("test", "docs")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def roots() -> list[Requirement]:
    project = tomllib.loads(Path("pyproject.toml").read_text())
    lines = list(project["build-system"]["requires"]) + list(project["project"]["dependencies"])
    for extra in EXTRAS:
        lines += project["project"]["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def wanted(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": e}) for e in extras | {""})


def closure() -> dict[str, metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = roots()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found[name] = distribution = metadata.distribution(name)
        for line in distribution.requires or ():
            child = Requirement(line)
            if wanted(child, set(requirement.extras)):
                queue.append(child)
    return found


def pin(distribution: metadata.Distribution) -> str:
    version = Version(
        distribution.version
    ).public  # no local tag: torch's +cpu is a matter of index
    line = f"{distribution.metadata['Name']}=={version}"
    needs = SpecifierSet(distribution.metadata.get("Requires-Python") or "")
    first = next(p for p in PYTHONS if needs.contains(p + ".99"))
    return line if first == PYTHONS[0] else f'{line}; python_version >= "{first}"'


def main() -> None:
    print(
        "# Written by scripts/pin.py: what the Makefile and CI install. Ranges are in pyproject.toml."
    )
    for _, distribution in sorted(closure().items()):
        print(pin(distribution))


if __name__ == "__main__":
    main()
