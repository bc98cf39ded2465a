"""Rows of the benchmark's table, options that select them, and the child process that measures them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tsbs_daw.core import child, errors
from tsbs_daw.core.errors import TsbsDawError


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        model: Name or file of the model.
        preset: Name of the preset.
        device: Device to compute on.
        seconds: Length of the song whose separation is timed.
        quick: Use tiny lengths and few repetitions, to test that everything runs; the figures are meaningless.
        only: Names of rows or groups; empty for all groups that take minutes.
        complete: Also measure groups that take longer.
    """

    model: str = "default"
    preset: str = "none"
    device: str = "auto"
    seconds: float = 60.0
    quick: bool = False
    only: tuple[str, ...] = ()
    complete: bool = False

    @property
    def memory_seconds(self) -> tuple[float, float]:
        return (2.0, 4.0) if self.quick else (30.0, 300.0)


@dataclass(frozen=True)
class Row:
    """A row of the table. A row without a target is for information only.

    Attributes:
        name: `group.figure`.
        what: Description of the figure.
        figure: The measured value.
        unit: Its unit.
        target: The largest or smallest acceptable value.
        larger_is_better: Whether the target is the smallest acceptable value.
    """

    name: str
    what: str
    figure: float
    unit: str
    target: float | None = None
    larger_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times the figure is better than the target; below 1, it misses the target."""
        if self.target is None or self.figure <= 0:
            return None
        return self.figure / self.target if self.larger_is_better else self.target / self.figure

    @property
    def ok(self) -> bool | None:
        if self.target is None:
            return None
        return self.figure >= self.target if self.larger_is_better else self.figure <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "ratio": self.ratio}


@dataclass(frozen=True)
class Group:
    """Rows that are measured together.

    Attributes:
        name: The part of the rows' names before the dot.
        measure: Measures the group.
        rows: Names of the rows that always exist.
        long: Whether it takes long, so that it is measured only on request.
        needs_model: Whether it measures the model of the options.
        open: Whether it may have other rows, too.
    """

    name: str
    measure: Callable[[Options], Iterable[Row]]
    rows: tuple[str, ...] = ()
    long: bool = False
    needs_model: bool = True
    open: bool = False


PROBE_LIMIT_S = 3600.0


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder for the files of probes, as a context manager."""
    return tempfile.TemporaryDirectory(prefix="tsbs-daw-bench-", ignore_cleanup_errors=True)


def probe(name: str, folder: str, options: Options, *, limit_s: float = PROBE_LIMIT_S, **values: Any) -> dict[str, Any]:
    """Run a measurement of the module `probe` in a child process.

    Args:
        name: Name of the measurement.
        folder: Folder for its files.
        options: Options of the benchmark.
        limit_s: Time limit.
        **values: Further arguments of the measurement.

    Raises:
        TsbsDawError: The child process failed or timed out; or the error that the measurement raised.
    """
    request: dict[str, object] = {"probe": name, "folder": folder, "model": options.model, "preset": options.preset}
    request |= {"device": options.device, "quick": options.quick, **values}
    command, env = child.python("tsbs_daw.lab.bench.probe"), child.environment()
    try:
        found: dict[str, Any] = child.ask(command, request, limit_s=limit_s, env=env)
    except child.ChildFailed as error:
        last = " ".join(error.log.strip().splitlines()[-1:])
        raise TsbsDawError(
            f"Measuring {name} ended early ({error.exit_text}: {last}); run `tsbs-daw doctor`."
        ) from error
    except child.ChildTimeout as error:
        raise TsbsDawError(f"Measuring {name} did not end within {limit_s:.0f} s.") from error
    if "error" in found:
        raise getattr(errors, found["kind"])(found["error"])
    return found
