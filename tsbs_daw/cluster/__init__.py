"""Separation on several machines through Ray. Ray only computes chunks; jobs and their state stay in the queue.

remote   the worker's side: replaces a separator's batcher
bridge   the process that talks to Ray for a worker
lanes    one lane per actor: calls under way, and what happens to chunks when the actor fails
node     the actor
status   nodes and trials for `tsbs-daw cluster status` and `doctor --cluster`
"""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePath

from pydantic import BaseModel, ConfigDict

from tsbs_daw.core.documents import Kind, read_model
from tsbs_daw.core.errors import SettingsError, UsageError

CONFIG = "cluster.yaml"  # in the home

Paths = dict[str, dict[str, str]]  # for each host: path prefix on this machine -> prefix on the host


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    paths: Paths = {}


def read_paths(home: Path) -> Paths:
    """Read from `cluster.yaml` which folders hosts share with this machine.

    Raises:
        SettingsError: The file is invalid; names line and column.
    """
    path = home / CONFIG
    if not path.exists():
        return {}
    return read_model(path, _Config, Kind("cluster configuration", SettingsError, "it needs `paths:`")).paths


def places_of(path: Path, paths: Paths) -> tuple[tuple[str, str], ...]:
    """Return (host, path on that host) for each host that shares a folder containing a file.

    If several prefixes match, the longest counts.
    """
    found = []
    for host, prefixes in sorted(paths.items()):
        for here in sorted(prefixes, key=len, reverse=True):
            if path.is_relative_to(here):
                found.append((host, str(PurePath(prefixes[here]) / path.relative_to(here))))
                break
    return tuple(found)


def check_address(address: str, option: str = "--cluster") -> str:
    """Check the address of a cluster and return it.

    Raises:
        UsageError: The address is invalid, or Ray is not installed.
    """
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdigit() or "/" in address):
        raise UsageError(f"Invalid {option} {address!r}: use `auto`, or the address of the head, as in 10.0.0.1:6379.")
    if importlib.util.find_spec("ray") is None:
        raise UsageError("A cluster needs Ray, which is not installed; run `pip install 'tsbs-daw[cluster]'`.")
    return address
