"""Beside others.

peers.*      what a user would pick instead, where it is installed (the extra `bench`)
reference.*  this network as one writes it down first, against this network as it is
"""

from __future__ import annotations

from collections.abc import Iterator

from tsbs_daw.lab.bench.probing import probe, work_folder
from tsbs_daw.lab.bench.row import Group, Options, Row

AHEAD_OF = {"htdemucs": 3.0}  # the bundled model is at least so many times as fast
AHEAD_OF_REFERENCE = 6.0


def _peers(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("peers", folder, options)
    for name, seconds in found.items():
        yield Row(f"peers.{name}", f"{name}: computing per second of song", seconds, "s per s")
    for name in found.keys() - {"tiny", "full"}:
        what = f"the bundled size is faster than {name} by"
        yield Row(f"peers.tiny_over_{name}", what, found[name] / found["tiny"], "x", AHEAD_OF.get(name), True)
        if "full" in found:
            yield Row(f"peers.full_over_{name}", f"the full size, than {name}", found[name] / found["full"], "x")


def _reference(options: Options) -> Iterator[Row]:
    with work_folder() as folder:
        found = probe("reference", folder, options)
    yield Row("reference.plain", "the full size, plainly written", found["reference"], "s per s")
    yield Row("reference.fast", "the full size, as it is", found["fast"], "s per s")
    ahead = found["reference"] / found["fast"]
    yield Row("reference.ahead", "faster by", ahead, "x", AHEAD_OF_REFERENCE, True)


GROUPS = (
    Group("peers", _peers, ("peers.tiny",), long=True, needs_model=False, open=True),
    Group(
        "reference",
        _reference,
        ("reference.plain", "reference.fast", "reference.ahead"),
        long=True,
        needs_model=False,
    ),
)
