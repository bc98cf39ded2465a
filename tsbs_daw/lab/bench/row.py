"""One line of the table, what decides which lines there are, and the process of its own that measures it."""

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

    seconds:  of the song whose separation is timed
    quick:    tiny lengths and few repetitions: shows that everything runs, not how fast
    only:     names of rows or groups; empty is the groups that take minutes
    complete: the groups that take longer, too
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
    """One line of the table. A row without a target is there for information.

    larger_is_better: which way the target is meant
    """

    name: str
    what: str
    figure: float
    unit: str
    target: float | None = None
    larger_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better than the target; below 1 is a miss."""
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

    name:        the part of their names before the dot
    rows:        those that are always there
    long:        takes more than minutes, and is measured only when asked for
    needs_model: measures the model that the options name
    open:        has more rows than can be named beforehand
    """

    name: str
    measure: Callable[[Options], Iterable[Row]]
    rows: tuple[str, ...] = ()
    long: bool = False
    needs_model: bool = True
    open: bool = False


PROBE_LIMIT_S = 3600.0


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """Where probes put their files; gone after the `with`."""
    return tempfile.TemporaryDirectory(prefix="tsbs-daw-bench-", ignore_cleanup_errors=True)


def probe(name: str, folder: str, options: Options, *, limit_s: float = PROBE_LIMIT_S, **values: Any) -> dict[str, Any]:
    """Run one of `probe`'s measurements in a process of its own. Raises: what it raised; TsbsDawError: it died"""
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
