"""Separation on several machines through Ray, which executes and decides nothing: the queue stays the truth.

remote   the worker's side, in place of a separator's batcher
bridge   the process that speaks Ray for it
lanes    the way to one actor each, and what becomes of chunks when it fails
node     the actor
status   what `tsbs-daw cluster status` and `doctor --cluster` find
"""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePath

from pydantic import BaseModel, ConfigDict

from tsbs_daw.core.documents import Kind, read_model
from tsbs_daw.core.errors import SettingsError, UsageError

CONFIG = "cluster.yaml"  # in the home

Paths = dict[str, dict[str, str]]  # by host: what a prefix here is called there


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    paths: Paths = {}


def read_paths(home: Path) -> Paths:
    """The folders that hosts share with this machine, from `cluster.yaml`. Raises: SettingsError: with its place"""
    path = home / CONFIG
    if not path.exists():
        return {}
    return read_model(path, _Config, Kind("file of a cluster", SettingsError, "it needs `paths:`")).paths


def places_of(path: Path, paths: Paths) -> tuple[tuple[str, str], ...]:
    """(host, where the file lies there) for each host that shares a folder around it; the longest prefix counts."""
    found = []
    for host, prefixes in sorted(paths.items()):
        for here in sorted(prefixes, key=len, reverse=True):
            if path.is_relative_to(here):
                found.append((host, str(PurePath(prefixes[here]) / path.relative_to(here))))
                break
    return tuple(found)


def check_address(address: str, option: str = "--cluster") -> str:
    """Raises: UsageError: not an address that can be used, or no Ray here"""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdigit() or "/" in address):
        raise UsageError(f"Invalid {option} {address!r}: use `auto`, or the address of the head, as in 10.0.0.1:6379.")
    if importlib.util.find_spec("ray") is None:
        raise UsageError("A cluster needs Ray, which is not installed; run `pip install 'tsbs-daw[cluster]'`.")
    return address
