"""What a run of the oracle says: one line per check, and one exception that lists every failure by name."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ..errors import DiffeoError, InputError

Status = Literal["passed", "failed", "skipped"]


class CheckFailed(DiffeoError, AssertionError):
    """At least one check failed; `failed` holds their names, `report` everything."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.failed: tuple[str, ...] = report.failed
        lines = [f"  {r.check}: {r.note}" for r in report.results if r.status == "failed"]
        super().__init__("\n".join([f"{report.name} fails {', '.join(self.failed)}", *lines]))


class Failure(Exception):
    """Raised by a check: what was found, what was expected."""


class Skip(Exception):
    """Raised by a check that does not apply: why."""


@dataclass(frozen=True)
class Result:
    """One check: its worst error where it measures one, and why it failed or was skipped."""

    check: str
    status: Status
    error: float | None = None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """All checks of one thing. `print(report)` shows a table."""

    name: str
    results: tuple[Result, ...] = field(default=())

    @property
    def passed(self) -> tuple[str, ...]:
        return tuple(r.check for r in self.results if r.status == "passed")

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(r.check for r in self.results if r.status == "failed")

    @property
    def skipped(self) -> dict[str, str]:
        """Check to reason."""
        return {r.check: r.note for r in self.results if r.status == "skipped"}

    def __str__(self) -> str:
        width = max((len(r.check) for r in self.results), default=0)
        lines = [self.name]
        for r in self.results:
            error = "" if r.error is None else f"{r.error:.1e}"
            lines.append(
                f"  {r.check:<{width}}  {r.status:<7}  {error:>7}  {r.seconds:5.1f} s  {r.note}".rstrip()
            )
        return "\n".join(lines)


Check = Callable[[Any], float | None]


def run(
    name: str,
    suites: Sequence[tuple[Mapping[str, Check], Any]],
    checks: Iterable[str] | None,
    skip: Iterable[str],
) -> Report:
    """Run the chosen checks of every suite (a table of checks and the case they take); raise CheckFailed at the end.

    Raises InputError for names that are no check.
    """
    known = [check for table, _ in suites for check in table]
    wanted = known if checks is None else list(checks)
    omitted = set(skip)
    unknown = sorted((set(wanted) | omitted) - set(known))
    if unknown:
        raise InputError(f"there is no check {unknown[0]!r}; the checks are {', '.join(known)}")
    results = [
        Result(check, "skipped", note="by the caller")
        if check in omitted
        else _run_one(check, function, case)
        for table, case in suites
        for check, function in table.items()
        if check in wanted
    ]
    report = Report(name, tuple(results))
    if report.failed:
        raise CheckFailed(report)
    return report


def _run_one(name: str, function: Check, case: Any) -> Result:
    start = time.perf_counter()
    status: Status = "passed"
    error, note = None, ""
    try:
        # A check draws the same numbers alone and among others, and leaves the caller's random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            error = function(case)
    except Skip as reason:
        status, note = "skipped", str(reason)
    except Failure as failure:
        status, note = "failed", str(failure)
    except Exception as other:
        # A check that cannot even run is a failed promise; the place is where to look first.
        frame = traceback.extract_tb(other.__traceback__)[-1]
        where = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        text = str(other).strip().split("\n")[0][:300]
        status, note = "failed", f"{type(other).__name__} at {where}: {text}"
    return Result(name, status, error, note, time.perf_counter() - start)
