"""Where recordings come from: their licences, the credits these ask for, and a digest of every source's files.

`sources.yaml` describes the sources of the project's own material pack. Any other pack describes its sources in a
`sources.yaml` of its own, beside its `index.json`, with the same keys; there, `files` and `digest` may be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from tsbs_daw.core.errors import UsageError

ACCEPTED_LICENCES = ("CC0 1.0", "public domain", "CC BY 3.0", "CC BY 4.0", "MIT", "MIT with a no-endorsement clause")
ASK_FOR_CREDIT = ("CC BY 3.0", "CC BY 4.0", "MIT", "MIT with a no-endorsement clause")


@dataclass(frozen=True)
class Source:
    """One collection of recordings.

    Attributes:
        commit: the commit, release or package version the recordings were cut from
        stated: where the licence is stated, and its words
        credit: the line to print wherever what was made from the recordings is published; "" when none is asked for
        files: how many recordings there are; 0 when that is not pinned
        digest: SHA-256 over the recordings, see `digest_of`
    """

    name: str
    title: str
    author: str
    address: str
    commit: str
    licence: str
    stated: str = ""
    credit: str = ""
    chosen: str = ""
    files: int = 0
    digest: str = ""


def read_sources(path: Path | None = None) -> dict[str, Source]:
    """The sources described in a file, or those of the project's own pack.

    Raises:
        UsageError: the file cannot be read, or an entry lacks a key or has an unknown one
    """
    place = files(__package__).joinpath("sources.yaml") if path is None else path
    try:
        entries = yaml.safe_load(place.read_text(encoding="utf-8")) or {}
        return {name: Source(name, **entry) for name, entry in entries.items()}
    except OSError as problem:
        raise UsageError(f"Cannot read {place} ({problem.strerror}). Check the folder of the pack.") from problem
    except (yaml.YAMLError, TypeError, AttributeError, UnicodeDecodeError) as problem:
        reason = " ".join(str(problem).split())
        raise UsageError(f"{place} is not a list of sources ({reason}). Correct it.") from problem


def require_sources(folder: Path, paths: dict[str, list[str]]) -> list[Source]:
    """Check the licence of every source of a pack, and the files of every source that is whole.

    Args:
        folder: the pack
        paths: the files that are there, relative to the folder, by source

    Raises:
        UsageError: a source is not described, its licence is not accepted or asks for a credit that is missing, or
            its files are not those that were described
    """
    described = read_sources()
    own = folder / "sources.yaml"
    if own.is_file():
        described |= read_sources(own)
    used = []
    for name in sorted(paths):
        if name not in described:
            raise UsageError(f"No licence is known for the source {name} of {folder}. Describe it in {own}.")
        source = described[name]
        _require_licence(source, folder)
        if source.digest and source.files == len(paths[name]) and digest_of(folder, paths[name]) != source.digest:
            raise UsageError(f"The files of the source {name} in {folder} were changed. Make the pack again.")
        used.append(source)
    return used


def _require_licence(source: Source, folder: Path) -> None:
    if source.licence not in ACCEPTED_LICENCES:
        raise UsageError(
            f"The source {source.name} of {folder} is under {source.licence}, which is not accepted "
            f"(only {', '.join(ACCEPTED_LICENCES)}). Remove its files."
        )
    if source.licence in ASK_FOR_CREDIT and not source.credit:
        raise UsageError(
            f"The source {source.name} of {folder} is under {source.licence}, which asks for a credit, and has none. "
            "Add its `credit`."
        )


def digest_of(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 over files in the order of their paths: of each the path, a zero byte, and the SHA-256 of its content."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(path.encode() + b"\0" + hashlib.sha256((folder / path).read_bytes()).digest())
    return whole.hexdigest()


def credit_lines(sources: Iterable[Source]) -> list[str]:
    """The credits that licences ask for, each once."""
    return sorted({source.credit for source in sources if source.credit}, key=str.casefold)


def credits_page(sources: Iterable[Source]) -> str:
    """A page in Markdown: the credits to print, then every source with its licence and where it comes from."""
    sources = sorted(sources, key=lambda source: source.name)
    lines = ["# Recordings", "", "Cut, mostly mixed to mono, resampled to 44.1 kHz and encoded for this use.", ""]
    lines += [f"- {line}" for line in credit_lines(sources)]
    lines += ["", "| source | by | licence | from | version |", "|---|---|---|---|---|"]
    for source in sources:
        cells = (source.title, source.author, source.licence, source.address, f"`{source.commit}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])
