"""The protocol between a chain's process and its parent: messages of one letter and a payload, over two pipes.

parent to child                           child to parent
C  JSON: chain, sample_rate, channels     R  the chain is built
B  a block of float32                     A  the number of the effect that is called next, counted along the chain
E  the last block of float32               B  a block of float32
                                          X  an error message
"""

from __future__ import annotations

import struct
from typing import IO

from tsbs_daw.effects.table import Effect

_HEADER = struct.Struct("<cI")
LARGEST_PAYLOAD = 1 << 30


def send(stream: IO[bytes], kind: bytes, payload: bytes = b"") -> None:
    """Write one message and flush it."""
    stream.write(_HEADER.pack(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read one message: kind and payload.

    Raises:
        EOFError: the other side has ended, or does not speak this protocol
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    kind, length = _HEADER.unpack(header)
    if length > LARGEST_PAYLOAD:
        raise EOFError
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError
    return kind, payload


def effect_to_json(effect: Effect) -> dict:
    """An effect as plain JSON values."""
    return {
        "name": effect.name,
        "parameters": dict(effect.parameters),
        "children": [effect_to_json(child) for child in effect.children],
        "path": effect.path,
        "plugin": effect.plugin,
    }


def effect_from_json(document: dict) -> Effect:
    """The inverse of `effect_to_json`."""
    children = tuple(effect_from_json(child) for child in document["children"])
    return Effect(document["name"], document["parameters"], children, document["path"], document["plugin"])
