"""Speed and memory on this machine, each measured in a process of its own and held against its target.

Figures that are compared with each other are taken in turn, in one process, so that whatever else the machine does
meets both. What takes minutes is measured unless something else is asked for; `complete` adds the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.bench import engine, growth, peers, user
from tsbs_daw.lab.bench.probing import probe, work_folder
from tsbs_daw.lab.bench.row import Options, Row

# In the order in which they are measured.
GROUPS = {group.name: group for group in (*user.GROUPS, *engine.GROUPS, *peers.GROUPS, *growth.GROUPS)}


def measure(options: Options) -> Iterator[Row]:
    """Every wanted row as soon as it is known.

    Raises: UsageError: `only` names what there is not; TsbsDawError: what was to be measured failed
    """
    wanted = _wanted(options)
    chosen = [group for name, group in GROUPS.items() if any(row.split(".")[0] == name for row in wanted)]
    if any(group.needs_model for group in chosen):
        with work_folder() as folder:
            options = replace(options, model=probe("resolve", folder, options)["path"])
    for group in chosen:
        yield from (row for row in group.measure(options) if not options.only or {row.name, group.name} & wanted)


def _wanted(options: Options) -> set[str]:
    if not options.only:
        return {name for name, group in GROUPS.items() if options.complete or not group.long}
    known = [*GROUPS, *(row for group in GROUPS.values() for row in group.rows)]
    for name in options.only:
        if name not in known and not (name.split(".")[0] in GROUPS and GROUPS[name.split(".")[0]].open):
            raise UsageError(f"There is no row {name!r}; choose from {', '.join(known)}.")
    return set(options.only)
