"""Make a material pack out of clones of the public repositories that the recordings come from.

    git clone https://github.com/sfzinstruments/karoryfer.growlybass
    python -m tsbs_daw.lab pack OUT --clone karoryfer.growlybass

`recipes.yaml` says what is cut from where. Files are read from the commit that `sources.yaml` pins, whatever is checked
out: a commit's hash covers every byte. The clone must state the licence that `sources.yaml` names.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
import yaml
from pedalboard import HighpassFilter, Pedalboard

from tsbs_daw.core.errors import DatasetError, UsageError
from tsbs_daw.core.files import write_atomically
from tsbs_daw.lab.songs.dsp import SAMPLE_RATE
from tsbs_daw.lab.songs.material import Source, digest_of, read_sources

GIT_S = 600.0
THRESHOLD = 10.0 ** (-70 / 20)
BELOW_PEAK = 10.0 ** (-58 / 20)
LEAD_S = 0.005  # kept before the first sound above the threshold
HEADROOM = 0.82  # peak of the loudest recording of a source that would clip; Vorbis overshoots
QUALITY = 0.5
STEPS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


@dataclass(frozen=True)
class Cut:
    """One recording to be made."""

    path: str
    row: dict[str, Any]
    velocity: float
    seconds: float
    add: dict[str, float]


def make_pack(
    out: Path,
    clones: list[Path],
    *,
    recipes: dict[str, Any] | None = None,
    sources: dict[str, Source] | None = None,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Cut the recordings of every source whose clone is given; sources in the pack's index are not changed.

    Args:
        out: Folder of the pack, which may exist.
        clones: Folders of cloned repositories, each named after its repository.
        recipes: Content of recipes.yaml.
        sources: Content of sources.yaml.
        report: Called with a line for every source.

    Returns:
        The names of the new sources.

    Raises:
        UsageError: No recipe is for the repository of a clone.
        DatasetError: A clone lacks a commit, file or licence text, or a recording cannot be decoded.
    """
    recipes = recipes or yaml.safe_load(files(__package__).joinpath("recipes.yaml").read_text(encoding="utf-8"))
    sources = sources or read_sources()
    wanted = {name: clone for name, recipe in recipes.items() for clone in clones if clone.name == recipe["repository"]}
    if not wanted:
        known = ", ".join(sorted(recipe["repository"] for recipe in recipes.values()))
        raise UsageError(f"None of the clones is known by the name of its folder; known are {known}.")
    out.mkdir(parents=True, exist_ok=True)
    index = out / "index.json"
    rows = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []
    described = read_sources(out / "sources.yaml") if (out / "sources.yaml").is_file() else {}
    made = []
    for name, clone in wanted.items():
        if name in described:
            continue
        new = _make_source(out, sources[name], recipes[name], clone)
        digest = digest_of(out, [row["path"] for row in new])
        described[name] = replace(sources[name], files=len(new), digest=digest)
        rows += new
        _write_sources(out, described)
        write_atomically(index, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
        report(f"{name}: {len(new)} recordings, {sum(row['seconds'] for row in new):.0f} s")
        made.append(name)
    return made


def _write_sources(out: Path, described: dict[str, Source]) -> None:
    entries = {
        name: {key: value for key, value in vars(source).items() if key != "name" and value}
        for name, source in sorted(described.items())
    }
    write_atomically(out / "sources.yaml", yaml.safe_dump(entries, allow_unicode=True, sort_keys=False))


def _make_source(out: Path, source: Source, recipe: dict[str, Any], clone: Path) -> list[dict[str, Any]]:
    _require_licence(source, recipe, clone)
    listing = _git(clone, "ls-tree", "-r", "-z", "--name-only", source.commit).decode("utf-8", "replace")
    paths = sorted(listing.split("\0"))
    cuts = [cut for rule in recipe["rules"] for cut in _cuts({**recipe, **rule}, paths, source, clone)]
    if not cuts:
        raise DatasetError(f"The clone {clone} holds none of the recordings of {source.name}; clone it again.")
    sounds = [_cut(cut, recipe, source, clone) for cut in cuts]
    loudest = max(float(np.abs(sound).max()) for sound in sounds)
    scale = np.float32(HEADROOM / loudest if loudest > 0.97 else 1.0)
    rows = []
    for cut, sound in zip(cuts, sounds, strict=True):
        stem = re.sub(r"[^\w.-]+", "_", Path(cut.path).with_suffix("").as_posix().replace("#", "s"))
        path = f"{source.name}/{stem}.ogg"
        _write(out / path, sound * scale)
        seconds, peak_db = len(sound) / SAMPLE_RATE, 20 * np.log10(float(np.abs(sound).max() * scale))
        row = {"path": path, "source": source.name, **cut.row, "velocity": cut.velocity, "original": cut.path}
        rows.append({**row, "seconds": round(seconds, 3), "channels": sound.shape[1], "peak_db": round(peak_db, 1)})
    return rows


def _require_licence(source: Source, recipe: dict[str, Any], clone: Path) -> None:
    stated = _git(clone, "cat-file", "blob", f"{source.commit}:{recipe['stated_in']}").decode("utf-8", "replace")
    if recipe["words"].casefold() not in " ".join(stated.split()).casefold():
        raise DatasetError(
            f"{recipe['stated_in']} of the clone {clone} does not say {recipe['words']!r}; "
            f"{source.name} is not used without that licence."
        )


def _cuts(rule: dict[str, Any], paths: list[str], source: Source, clone: Path) -> list[Cut]:
    """What one rule takes, thinned out to `most` recordings spread over the velocities."""
    mapping = _read_sfz(clone, source.commit, rule["sfz"]) if "sfz" in rule else {}
    found = [cut for path in paths if (cut := _match(rule, path, mapping)) is not None]
    most = rule.get("most", len(found))
    if len(found) <= most:
        return found
    found.sort(key=lambda cut: (cut.velocity, cut.path))
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, most)]


def _match(rule: dict[str, Any], path: str, mapping: dict[str, tuple[int | None, float]]) -> Cut | None:
    match = re.fullmatch(rule["files"], path)
    if match is None:
        return None
    found = match.groupdict()
    layer, take = found.get("layer"), int(found.get("take") or 1)
    takes = rule.get("takes")
    allowed = takes.get(layer, []) if isinstance(takes, dict) else takes
    if (layer is not None and layer not in rule["layers"]) or (allowed is not None and take not in allowed):
        return None
    key, velocity = mapping.get(path, (None, 1.0))
    if mapping and path not in mapping:
        return None
    if rule["stem"] == "drums" or "kind" not in rule or "noise" in rule["kind"]:
        key = None
    else:
        key = int(found["key"]) if found.get("key") else midi_note(found["note"]) if found.get("note") else key
    velocity = rule["layers"][layer] if layer is not None else rule.get("velocity", round(velocity, 2))
    articulation = found.get("articulation") or rule.get("articulation", "")
    row = {"stem": rule["stem"], "kind": rule["kind"], "articulation": articulation, "rr": take}
    if key is not None:
        row["note"] = key + 12 * rule.get("octave", 0)
    return Cut(path, row, float(velocity), float(rule["seconds"]), rule.get("add", {}))


def midi_note(name: str) -> int:
    """The MIDI number of a note's name: c4 is 60, eb3 is 51.

    Raises:
        DatasetError: it is no such name
    """
    match = re.fullmatch(r"([A-Ga-g])([#b]?)(-?\d)", name)
    if match is None:
        raise DatasetError(f"{name!r} is not the name of a note; correct the recipe.")
    letter, accidental, octave = match.groups()
    return STEPS[letter.lower()] + {"": 0, "#": 1, "b": -1}[accidental] + 12 * (int(octave) + 1)


def _read_sfz(clone: Path, commit: str, name: str) -> dict[str, tuple[int | None, float]]:
    """The note and the mean velocity (0..1) of every sample of an SFZ file, by path."""
    text = re.sub(r"//.*", "", _git(clone, "cat-file", "blob", f"{commit}:{name}").decode("utf-8", "replace"))
    group: dict[str, str] = {}
    heard: dict[str, list[float]] = {}
    notes: dict[str, int | None] = {}
    for header, body in re.findall(r"<(\w+)>([^<]*)", text):
        entry = dict(re.findall(r"(\w+)=(.+?)(?=\s+\w+=|\s*$)", body, re.MULTILINE))
        if header == "group":
            group = entry
        elif header == "region" and "sample" in (entry := {**group, **entry}):
            path = entry["sample"].strip().replace("\\", "/")
            low, high = float(entry.get("lovel", 0)), float(entry.get("hivel", 127))
            heard.setdefault(path, []).append((low + high) / 254)
            note = entry.get("pitch_keycenter") or entry.get("key")
            notes[path] = int(note) if note and note.isdigit() else midi_note(note) if note else None
    return {path: (notes[path], float(np.mean(levels))) for path, levels in heard.items()}


def _cut(cut: Cut, recipe: dict[str, Any], source: Source, clone: Path) -> np.ndarray:
    """The recording, trimmed and faded: (samples, channels) float32 at 44.1 kHz."""
    sound = _read(clone, source.commit, cut.path)
    microphone = cut.path.split("/")[-2] if "/" in cut.path else ""
    for folder, level in cut.add.items():
        other = _read(clone, source.commit, cut.path.replace(f"{microphone}/", f"{folder}/"))
        length = min(len(sound), len(other))
        sound[:length] += np.float32(level) * other[:length]
    if recipe.get("high_pass_hz"):
        board = Pedalboard([HighpassFilter(recipe["high_pass_hz"]) for _ in range(4)])
        sound = board(np.ascontiguousarray(sound.T), SAMPLE_RATE).T
    return trim(sound, cut.seconds)


def _read(clone: Path, commit: str, path: str) -> np.ndarray:
    try:
        sound, rate = sf.read(io.BytesIO(_git(clone, "cat-file", "blob", f"{commit}:{path}")), always_2d=True)
    except (sf.LibsndfileError, RuntimeError) as problem:
        raise DatasetError(f"Cannot decode {path} of the clone {clone} ({problem}). Clone it again.") from problem
    if rate != SAMPLE_RATE:
        sound = soxr.resample(sound, rate, SAMPLE_RATE, quality="VHQ")
    if sound.shape[1] > 1 and np.abs(sound[:, 0] - sound[:, 1]).max() < 1e-3 * max(float(np.abs(sound).max()), 1e-6):
        sound = sound[:, :1]
    return sound[:, :2].astype(np.float32)


def trim(sound: np.ndarray, seconds: float) -> np.ndarray:
    """From just before the first sound to after the last, at most `seconds`, with short fades: (samples, channels)."""
    threshold = min(THRESHOLD, float(np.abs(sound).max()) * BELOW_PEAK)
    above = np.flatnonzero(np.abs(sound).max(axis=1) > threshold)
    if not len(above):
        return sound[:1]
    first = max(int(above[0]) - int(LEAD_S * SAMPLE_RATE), 0)
    end = min(int(above[-1]) + int(LEAD_S * SAMPLE_RATE), first + int(seconds * SAMPLE_RATE), len(sound))
    kept = sound[first:end].copy()
    cut_short = end < above[-1]
    fade = min(int((0.25 if cut_short else LEAD_S) * SAMPLE_RATE), len(kept) // 4)
    kept[len(kept) - fade :] *= (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fade)))[:, None].astype(np.float32)
    rise = min(32, len(kept))
    kept[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)[:, None]
    return kept


def _write(path: Path, sound: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sf.SoundFile(
        path, "w", SAMPLE_RATE, sound.shape[1], format="OGG", subtype="VORBIS", compression_level=1 - QUALITY
    ) as file:
        for start in range(0, len(sound), 4096):  # libsndfile's encoder overflows its stack on long blocks
            file.write(sound[start : start + 4096])


def _git(clone: Path, *arguments: str) -> bytes:
    try:
        command = ["git", "-C", str(clone), *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=GIT_S).stdout
    except FileNotFoundError as problem:
        raise DatasetError("The program git is missing; install it to read clones.") from problem
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
        raise DatasetError(
            f"The clone {clone} does not hold {arguments[-1]}; clone the whole repository, with its history."
        ) from problem
