"""An item's state chunk, as far as scripts edit it: the envelopes of its takes, and the type of their sources; all else
must come back as it was.

The layout is that of genuine project files: a take's lines follow each other, its envelopes stand after its SOURCE
block, and a TAKE line begins each take but the first.
"""

from __future__ import annotations

import re

from reaper.model import Item, Source, Take, kill
from reaper.signatures import Misuse

ENVELOPES = ("VOLENV", "PANENV", "MUTEENV", "PITCHENV")


def _take_lines(take: Take) -> list[str]:
    source = ["<SOURCE EMPTY", ">"]
    if take.source:
        source = [f"<SOURCE {take.source.type}", f'  FILE "{take.source.path}"', ">"]
    lines = [f'NAME "{take.strings["P_NAME"]}"'.replace("\n", " "), f"GUID {take.guid}", *source]
    for name, points in take.envelopes.items():
        lines += [f"<{name}", "  EGUID {00000000-0000-0000-0000-000000000001}", "  ACT 1 -1", "  DEFSHAPE 0 -1 -1"]
        lines += [f"  PT {at:.10g} {value:.10g} 0" for at, value in points] + [">"]
    return lines


def write(item: Item) -> str:
    lines = ["<ITEM", f"POSITION {item.values['D_POSITION']:.10g}", f"LENGTH {item.values['D_LENGTH']:.10g}"]
    for number, take in enumerate(item.takes):
        lines += ([] if number == 0 else ["TAKE SEL" if number == item.active else "TAKE"]) + _take_lines(take)
    return "\n".join([*lines, ">"]) + "\n"


def read(item: Item, text: str) -> None:
    """Raises: Misuse: something else than an envelope differs, or the blocks do not nest"""
    plain, found, number, block = [], [{}], 0, None
    types = re.findall(r"<SOURCE (\w+)", text)
    depth = 0
    for line in text.splitlines():
        word = line.strip().split(" ")[0]
        depth += word.startswith("<")
        if depth == 1 and word == "TAKE":
            found.append({})
            number += 1
        if depth == 2 and word.lstrip("<") in ENVELOPES:
            block = found[number].setdefault(word.lstrip("<"), [])
        elif block is not None and word == "PT":
            at, value = line.split()[1:3]
            block.append((float(at), float(value)))
        elif block is None:
            plain.append(line)
        if word == ">":
            depth -= 1
            block = None if depth == 1 else block
    if depth != 0:
        raise Misuse("SetItemStateChunk: the blocks of the chunk do not nest")
    expected = [line for take in item.takes for line in _without_envelopes(take)]
    if [line for line in plain if line.startswith(("NAME", "GUID"))] != [
        line for line in expected if line.startswith(("NAME", "GUID"))
    ]:
        raise Misuse("SetItemStateChunk: something else than an envelope was changed")
    fresh = []
    for take, envelopes, type_ in zip(item.takes, found, types, strict=True):
        other = Take(item)
        vars(other).update({**vars(take), "alive": True, "envelopes": envelopes})
        if take.source is not None and type_ != take.source.type:
            other.source = Source(take.source.path, type_)  # the same file, opened as another kind
            other.source.owned = True
        take.source = None
        kill(take)
        fresh.append(other)
    item.takes[:] = fresh


def _without_envelopes(take: Take) -> list[str]:
    return _take_lines(take)[:2]
