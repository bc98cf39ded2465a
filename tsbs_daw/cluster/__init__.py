"""Separation on several machines through Ray, which executes and decides nothing: the queue stays the truth.

remote   the worker's side, in place of a separator's batcher
bridge   the process that speaks Ray for it
lanes    the way to one actor each, and what becomes of chunks when it fails
node     the actor
status   what `tsbs-daw cluster status` and `doctor --cluster` find
"""

from __future__ import annotations

import importlib.util

from tsbs_daw.core.errors import UsageError


def check_address(address: str, option: str = "--cluster") -> str:
    """Raises: UsageError: not an address that can be used, or no Ray here"""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdigit() or "/" in address):
        raise UsageError(f"Invalid {option} {address!r}: use `auto`, or the address of the head, as in 10.0.0.1:6379.")
    if importlib.util.find_spec("ray") is None:
        raise UsageError("A cluster needs Ray, which is not installed; run `pip install 'tsbs-daw[cluster]'`.")
    return address
