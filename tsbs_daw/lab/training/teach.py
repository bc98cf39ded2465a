"""Knowledge distillation: train a small, fast model on the stems that a better, slower model makes of the user's songs.

Files in the work folder, from which a later call resumes:
    songs/train, songs/valid    the teacher's stems of each song; valid: of the songs kept back
    run                         the training run (tsbs_daw.lab.training.trainer)
"""

from __future__ import annotations

import logging
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsbs_daw.core.config import Settings
from tsbs_daw.core.errors import AudioError, DatasetError, NoSpaceLeft, UnknownModel, UsageError, shown
from tsbs_daw.core.files import disk_is_full, file_sha256

if TYPE_CHECKING:
    from tsbs_daw.lab.training.recipe import Recipe
    from tsbs_daw.network import ModelConfig
    from tsbs_daw.network.seam import NetworkConfig
    from tsbs_daw.separation.separator import Separator

logger = logging.getLogger(__name__)

ENDINGS = frozenset(".wav .aif .aiff .flac .ogg .opus .mp3 .m4a .aac .wma .caf .w64 .wv".split())  # noqa: SIM905
LEAST_SONGS = 2
KEPT_BACK = 5  # one in this many songs is kept back, chosen by a checksum of its name
_FULL = "The disk of {} is full; free some space and rerun the command."
MEASURED_S = 60.0  # seconds to measure of each song kept back
CHANNELS = 2


@dataclass(frozen=True)
class Lesson:
    """A request for `teach`.

    Attributes:
        name: Name of the new model.
        teacher: Name or file of a model of any network.
        songs: Folder of audio files.
        student: Name or file of a TS-BSMamba2 model, whose shape and weights are the starting point.
        minutes: Duration of the training, without the teacher's separations.
        work: Work folder; None for a folder in the home.
        device: Device to compute on.
        changes: Changes to the recipe, `part.field=value` each.
        overwrite: Whether to replace an existing model of this name.
    """

    name: str
    teacher: str
    songs: Path
    student: str = "default"
    minutes: float = 480.0
    work: Path | None = None
    device: str = "auto"
    changes: Sequence[str] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class Taught:
    """The result of `teach`.

    Attributes:
        path: The new model.
        kept_back: Names of the songs kept back.
        before_db: SDR of the student's stems before training, with the teacher's stems as truth, on these songs.
        after_db: The same after training.
        seconds: Computing time of teacher and student per second of these songs.
    """

    path: Path
    kept_back: tuple[str, ...]
    before_db: dict[str, float]
    after_db: dict[str, float]
    seconds: dict[str, float]


def teach(
    lesson: Lesson,
    settings: Settings,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda line: None,
) -> Taught | None:
    """Separate the songs, train, measure and install the model. Steps that the work folder has results of are skipped.

    Args:
        lesson: What to train.
        settings: The program's settings.
        stop: Called between steps; returns whether to stop.
        report: Called with a line of progress.

    Returns:
        The result; None if `stop` stopped it before the end.

    Raises:
        UnknownModel: The name is reserved for a known model.
        UsageError: The name is taken, or teacher and student have different stems.
        DatasetError: There are too few songs.
        NoSpaceLeft: The disk is full; the results so far are kept.
    """
    from tsbs_daw.models.kinds import read_config
    from tsbs_daw.models.registry import resolve
    from tsbs_daw.network import checkpoint
    from tsbs_daw.separation.separator import Separator

    target = _target(lesson, settings)
    work = lesson.work or settings.home / "taught" / lesson.name
    teacher_path, student_path = resolve(lesson.teacher, settings), resolve(lesson.student, settings)
    config = checkpoint.read_config(student_path)
    _require_same_stems(lesson, read_config(teacher_path), config)
    songs = find_songs(lesson.songs)
    try:
        teacher = Separator.load(str(teacher_path), lesson.device, settings)
        if not _separate_all(teacher, songs, work / "songs", config.sample_rate, stop, report):
            return None
        if not _train(lesson, config, student_path, work, stop):
            return None
        best = work / "run" / "best.safetensors"
        taught = _measure(lesson, settings, teacher, student_path, best, songs, target)
        _install(best, target, lesson, taught)
    except OSError as error:
        if disk_is_full(error):
            raise NoSpaceLeft(f"The disk of {shown(work)} is full; free some space and rerun the command.") from error
        raise
    return taught


def _target(lesson: Lesson, settings: Settings) -> Path:
    from tsbs_daw.models.registry import KNOWN, is_name, model_path

    if not is_name(lesson.name):
        raise UsageError(f"{lesson.name!r} cannot be a model's name; use letters, digits, '-' and '_'.")
    if lesson.name in KNOWN:
        raise UnknownModel(f"The name {lesson.name} is reserved for a known model; choose another.")
    path = model_path(lesson.name, settings)
    if path.exists() and not lesson.overwrite:
        raise UsageError(f"There is a model {lesson.name} already; choose another name or add --overwrite.")
    return path


def _require_same_stems(lesson: Lesson, teacher: NetworkConfig, student: ModelConfig) -> None:
    if set(teacher.stems) != set(student.stems):
        raise UsageError(
            f"{lesson.teacher} makes {', '.join(teacher.stems)} and {lesson.student} makes {', '.join(student.stems)}; "
            "choose a --student with the teacher's stems."
        )


def find_songs(folder: Path) -> dict[str, list[Path]]:
    """Find the audio files below `folder`, and choose those to keep back.

    Returns:
        {"train": files to learn from, "valid": files kept back}

    Raises:
        DatasetError: The folder does not exist, or has too few songs.
    """
    if not folder.is_dir():
        raise DatasetError(f"The folder of songs {shown(folder)} does not exist.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if len(files) < LEAST_SONGS:
        raise DatasetError(
            f"{shown(folder)} holds {len(files)} songs; at least {LEAST_SONGS} are needed, since some are kept back to "
            "measure with."
        )
    ranked = sorted(files, key=lambda path: (zlib.crc32(path.name.encode("utf-8", "surrogateescape")), path.name))
    back = set(ranked[: max(1, len(ranked) // KEPT_BACK)])
    return {"train": [path for path in files if path not in back], "valid": sorted(back)}


def _separate_all(
    teacher: Separator,
    songs: dict[str, list[Path]],
    folder: Path,
    rate: int,
    stop: Callable[[], bool],
    report: Callable[[str], None],
) -> bool:
    """Separate all songs with the teacher; unreadable songs are reported and skipped. Returns False if stopped."""
    total, done = sum(map(len, songs.values())), 0
    for split in ("valid", "train"):
        for path in songs[split]:
            if stop():
                return False
            done += 1
            target = folder / split / _folder_name(path)
            if (target / "song.json").exists():
                continue
            report(f"Separating {done} of {total}: {path.name}")
            try:
                _separate_one(teacher, path, target, rate)
            except AudioError as error:
                logger.warning("left out: %s", error)
        if not list((folder / split).glob("*/song.json")):
            which = "to learn from" if split == "train" else "that are kept back to measure with"
            names = ", ".join(path.name for path in songs[split])
            raise DatasetError(f"None of the songs {which} can be read: {names}.")
    return True


def _folder_name(path: Path) -> str:
    """Return a folder name that differs for files of the same name in different folders."""
    from tsbs_daw.core.filenames import safe_name

    return f"{safe_name(path.stem)}-{zlib.crc32(str(path.absolute()).encode('utf-8', 'surrogateescape')):08x}"


def _separate_one(teacher: Separator, path: Path, target: Path, rate: int) -> None:
    """Write the teacher's stems as 16-bit FLAC at the student's rate, and song.json last."""
    import soundfile
    import soxr

    audio, source_rate = read_stereo(path)
    if source_rate != rate:
        audio = soxr.resample(audio.T, source_rate, rate).T
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < 2 * audio.size * len(teacher.stems):
        raise NoSpaceLeft(_FULL.format(shown(target.parent)))
    stems = teacher.separate(audio, rate)
    # One gain for all stems, so that none clips and they still sum to the mixture.
    gain = 1.0 / max(1.0, *(float(np.abs(stem).max(initial=0.0)) for stem in stems.values()))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for stem, part in stems.items():
        soundfile.write(target / f"{stem}.flac", (gain * part).T, rate, subtype="PCM_16")
    (target / "song.json").write_text("{}", encoding="utf-8")


def read_stereo(path: Path, most_s: float | None = None) -> tuple[np.ndarray, int]:
    """Read a file as stereo: (2, samples) float32, and the rate. Mono is doubled; only two channels are used."""
    from tsbs_daw.audio.read import open_audio

    with open_audio(path) as reader:
        rate = reader.info.sample_rate
        parts, samples = [], 0
        for block in reader.blocks():
            parts.append(block)
            samples += block.shape[-1]
            if most_s is not None and samples >= most_s * rate:
                break
    audio = np.concatenate(parts, axis=-1) if parts else np.zeros((CHANNELS, 0), np.float32)
    return (np.repeat(audio, CHANNELS, axis=0) if len(audio) == 1 else audio[:CHANNELS]), rate


def _train(lesson: Lesson, config: ModelConfig, student: Path, work: Path, stop: Callable[[], bool]) -> bool:
    """Train the student. Returns False if stopped."""
    from tsbs_daw.lab.training.run_folder import read_progress
    from tsbs_daw.lab.training.trainer import RunOptions, train

    out, finished = work / "run", work / "run" / "finished"
    if finished.exists():
        return True
    spent = read_progress(out / "last.safetensors").trained_s / 60 if (out / "last.safetensors").exists() else 0.0
    options = RunOptions(
        work / "songs", out, True, None, lesson.device, init=student, minutes=max(0.0, lesson.minutes - spent)
    )
    stopped = False

    def asked() -> bool:
        nonlocal stopped
        stopped = stopped or stop()
        return stopped

    train(lesson_recipe(lesson, config), options, asked)
    if not stopped:
        finished.touch()
    return not stopped


def lesson_recipe(lesson: Lesson, config: ModelConfig) -> Recipe:
    """Return the recipe `bundled` for a network of the student's shape, with a learning rate for fine-tuning."""
    from tsbs_daw.lab.training.recipe import load_recipe

    recipe = load_recipe("bundled", ["optimiser.learning_rate=2e-3", "data.follow_s=0", *lesson.changes])
    overrides = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    return recipe.model_copy(
        update={"name": lesson.name, "model": recipe.model.model_copy(update={"overrides": overrides})}
    )


def _measure(
    lesson: Lesson,
    settings: Settings,
    teacher: Separator,
    before: Path,
    after: Path,
    songs: dict[str, list[Path]],
    target: Path,
) -> Taught:
    from tsbs_daw.lab.evaluation.evaluate import usdr
    from tsbs_daw.separation.separator import Separator

    students = {
        name: Separator.load(str(path), lesson.device, settings) for name, path in (("b", before), ("a", after))
    }
    scores: dict[str, dict[str, list[float]]] = {name: {stem: [] for stem in teacher.stems} for name in students}
    spent, audio_s, names = {"teacher": 0.0, "student": 0.0}, 0.0, []
    for path in songs["valid"]:
        try:
            audio, rate = read_stereo(path, MEASURED_S)
        except AudioError:
            continue  # reported when it was separated
        names.append(path.name)
        audio_s += audio.shape[-1] / rate
        begin = time.perf_counter()
        truth = teacher.separate(audio, rate)
        spent["teacher"] += time.perf_counter() - begin
        for name, student in students.items():
            begin = time.perf_counter()
            stems = student.separate(audio, rate)
            spent["student"] += time.perf_counter() - begin if name == "a" else 0.0
            for stem, wanted in truth.items():
                scores[name][stem].append(usdr(wanted, stems[stem]))
    means = {name: {stem: float(np.mean(values)) for stem, values in rows.items()} for name, rows in scores.items()}
    seconds = {name: value / audio_s for name, value in spent.items()}
    return Taught(target, tuple(names), means["b"], means["a"], seconds)


def _install(best: Path, target: Path, lesson: Lesson, taught: Taught) -> None:
    """Install the model in half precision among the user's models, and record its hash."""
    import torch

    from tsbs_daw.models.registry import HashRecord
    from tsbs_daw.network import checkpoint

    facts = {
        "taught_by": lesson.teacher,
        "began_from": lesson.student,
        "sdr_db_of_teacher": ", ".join(f"{stem} {value:.2f}" for stem, value in taught.after_db.items()),
        "measured_on": f"{len(taught.kept_back)} songs that were kept back",
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(checkpoint.load(best), target, facts, dtype=torch.float16)
    HashRecord(target.parent).record(target, file_sha256(target))
