"""One training run: songs and a recipe in, weights and a curve out; stopped and resumed at any step.

Files in the run's folder:
    recipe.json           what is trained, as the run began
    last.safetensors      the whole state, written every few steps (tsbs_daw.lab.training.state)
    best.safetensors      the averaged weights with the best validation SDR: a model, ready for use
    curve.jsonl           loss, rate, validation SDR by step
    song-levels.json      what reading the songs gave; spares a second reading
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tsbs_daw.core.errors import DatasetError, NonFiniteLoss, SettingsError
from tsbs_daw.lab.training.board import Board
from tsbs_daw.lab.training.cpu import tune_cpu
from tsbs_daw.lab.training.curve import Curve
from tsbs_daw.lab.training.dataset import TrainingExcerpts, validation_excerpts
from tsbs_daw.lab.training.loss import LossTerms, TwoStageLoss
from tsbs_daw.lab.training.optimiser import band_levels, make_optimiser
from tsbs_daw.lab.training.recipe import Recipe
from tsbs_daw.lab.training.schedule import ema_decay, learning_rate
from tsbs_daw.lab.training.song_folders import SongFolder, read_songs, require_whole, split_songs
from tsbs_daw.lab.training.state import Progress, load_state, save_state, write_tensors
from tsbs_daw.lab.training.validate import validate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What belongs to this call and not to the recipe.

    max_minutes: stop cleanly after this long; None: train to the recipe's last step
    accelerator, devices: as Lightning Fabric names them
    init: a model file to begin from, of the recipe's shape; None: random weights
    """

    data: Path
    out: Path
    resume: bool = False
    max_minutes: float | None = None
    accelerator: str = "auto"
    devices: int | str = 1
    skip_broken: bool = False
    init: Path | None = None


def train(
    recipe: Recipe,
    options: RunOptions,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[dict], None] = lambda row: None,
) -> Progress:
    """Train until the recipe's last step, the time budget, or `stop()`; the state is saved in each case.

    `report` gets each row of the curve as it is written; in one process only when several train.

    Raises DatasetError before the first step when songs are broken, NonFiniteLoss when the loss is, SettingsError
    when the folder already holds a run and `resume` is not asked for.
    """
    begin = time.monotonic()
    if not options.resume and (options.out / "last.safetensors").exists():
        raise SettingsError(f"the folder {options.out} already holds a run; add --resume, or choose another folder")
    fabric = Fabric(accelerator=options.accelerator, devices=options.devices, precision=recipe.optimiser.precision)
    fabric.launch()
    trainer = Trainer(fabric, recipe, options, report)
    deadline = None if options.max_minutes is None else begin + 60.0 * options.max_minutes
    return trainer.run(lambda: stop() or (deadline is not None and time.monotonic() >= deadline))


class Trainer:
    def __init__(self, fabric: Fabric, recipe: Recipe, options: RunOptions, report: Callable[[dict], None]):
        from tsbs_daw.network import TwoStageSeparator

        self.fabric, self.recipe, self.out, self.report = fabric, recipe, options.out, report
        self.config = recipe.model_config_value()
        self.out.mkdir(parents=True, exist_ok=True)
        songs, held_out = self._read_data(options)
        if fabric.device.type == "cpu":
            tune_cpu(fabric.world_size)
        torch.manual_seed(recipe.seed)
        self.raw_model: nn.Module = TwoStageSeparator(self.config)
        if options.init is not None:
            self._begin_from(options.init)
        if recipe.optimiser.train == "map_stage":
            self.raw_model.freeze_mask_stage()
        self.raw_model.checkpointing = recipe.model.gradient_checkpointing
        part = recipe.validation
        self.validation_targets, _ = validation_excerpts(
            held_out, segment_s=part.segment_s, excerpts=part.excerpts, seed=recipe.seed
        )
        levels = band_levels(self.raw_model, self.validation_targets) if recipe.optimiser.map_levels else None
        self.raw_optimiser = make_optimiser(self.raw_model, recipe.optimiser, levels)
        self.model, self.optimiser = fabric.setup(self.raw_model, self.raw_optimiser)
        self.ema = copy.deepcopy(self.raw_model).requires_grad_(False).eval()
        self.loss = TwoStageLoss(recipe.loss, self.config.sample_rate).to(fabric.device)
        self.progress = Progress()
        self.board: Board | None = None
        if options.resume and self.state_path.exists():
            self.progress = load_state(self.state_path, self.raw_model, self.ema, self.raw_optimiser)
        self._note_songs(songs)
        self.excerpts = TrainingExcerpts(
            songs,
            recipe.data,
            recipe.augment,
            seed=recipe.seed,
            batch=recipe.optimiser.batch,
            rank=fabric.global_rank,
        )
        if fabric.is_global_zero:
            self.curve = Curve(self.out / "curve.jsonl", resume_step=self.progress.step)
            if recipe.log.tensorboard:
                self.board = Board(self.out / "tensorboard", resume_step=self.progress.step)
            document = json.dumps(recipe.model_dump(mode="json"), indent=1)
            (self.out / "recipe.json").write_text(document, encoding="utf-8")

    def _begin_from(self, path: Path) -> None:
        """Raises: CheckpointError: not a model; SettingsError: a model of another shape."""
        from tsbs_daw.network import checkpoint

        loaded = checkpoint.load(path)
        if loaded.config != self.config:
            raise SettingsError(f"{path} is a network of another shape than the recipe's; begin without it")
        self.raw_model.load_state_dict(loaded.state_dict())

    @property
    def state_path(self) -> Path:
        return self.out / "last.safetensors"

    def run(self, stop: Callable[[], bool]) -> Progress:
        total, log = self.recipe.optimiser.total_steps, self.recipe.log
        passes = self._passes(total)
        mark = time.monotonic()
        while self.progress.step < total and not self._agree(stop()):
            terms, norm = self._step(passes)
            step = self.progress.step
            if step % log.curve_every_steps == 0 or step == 1:
                self._note_step(step, terms, norm, seconds=time.monotonic() - mark)
            self.progress.trained_s += time.monotonic() - mark
            if step % self.recipe.validation.every_steps == 0 or step == total:
                self._validate(step)
            if step % log.checkpoint_every_steps == 0:
                self._save()
            if log.keep_every_steps and step % log.keep_every_steps == 0:
                self._save_average(self.out / f"average-{step}.safetensors")
            mark = time.monotonic()
        self._save()
        if self.board is not None:
            self.board.close()
        return self.progress

    def _step(self, passes: Iterator[Tensor]) -> tuple[LossTerms, float]:
        """One step of the optimiser: forward and backward for each pass, clip, update, average."""
        self.model.train()
        settings, step = self.recipe.optimiser, self.progress.step
        for group in self.raw_optimiser.param_groups:
            group["lr"] = learning_rate(step, settings)
        for index in range(settings.accumulate):
            targets = next(passes).to(self.fabric.device, non_blocking=True)
            with self.fabric.no_backward_sync(self.model, enabled=index + 1 < settings.accumulate):
                output = self.model(targets.sum(dim=1))
                terms = self.loss(output.estimates, output.mask_estimates, targets)
                self._require_finite(terms.total, targets)
                self.fabric.backward(terms.total / settings.accumulate)
        norm = self.fabric.clip_gradients(
            self.model, self.optimiser, max_norm=settings.clip_norm, error_if_nonfinite=False
        )
        self._require_finite(norm, targets)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        update_average(self.ema, self.raw_model, ema_decay(step, settings))
        self.progress.step = step + 1
        return terms, float(norm)

    def _passes(self, total: int) -> Iterator[Tensor]:
        """Batches of targets from the next pass to the last one of the recipe."""
        accumulate, workers = self.recipe.optimiser.accumulate, self.recipe.data.loader_processes
        order = range(self.progress.step * accumulate, total * accumulate)
        return iter(DataLoader(self.excerpts, batch_size=None, sampler=order, num_workers=workers))

    def _require_finite(self, value: Tensor, targets: Tensor) -> None:
        if torch.isfinite(value.detach()).all():
            return
        path = self.out / f"nonfinite-step-{self.progress.step}.safetensors"
        write_tensors(path, {"targets": targets}, {"step": str(self.progress.step)})
        raise NonFiniteLoss(
            f"the loss or its gradient is not finite at step {self.progress.step}; the batch is saved as {path}; "
            "resume with a lower learning rate or a smaller clip_norm"
        )

    def _validate(self, step: int) -> None:
        begin = time.monotonic()
        with self.fabric.autocast():
            score = validate(self.ema, self.validation_targets, self.config.stems, self.fabric)
        if not self.fabric.is_global_zero:
            return
        if self.progress.best_sdr_db is None or score.mean_db > self.progress.best_sdr_db:
            self.progress.best_sdr_db, self.progress.best_step = score.mean_db, step
            self._save_average(self.out / "best.safetensors", score.mean_db)
        if self.board is not None:
            self._sound(step)
        self._note("validation", step, seconds=round(time.monotonic() - begin, 2), **score.as_row())

    @torch.no_grad()
    def _sound(self, step: int) -> None:
        """The first validation excerpt into the board: what is heard of each stem."""
        mixture = torch.from_numpy(self.validation_targets[0].sum(axis=0))[None].to(self.fabric.device)
        with self.fabric.autocast():
            estimates = self.ema(mixture).estimates[0].float().cpu().numpy()
        for stem, audio in zip(self.config.stems, estimates, strict=True):
            self.board.add_audio(f"estimate/{stem}", audio, self.config.sample_rate, step)

    def _note_step(self, step: int, terms: LossTerms, norm: float, *, seconds: float) -> None:
        row = {
            "loss": round(float(terms.total.detach()), 6),
            "final_loss": round(float(terms.final), 6),
            "mask_loss": round(float(terms.mask), 6),
            "gradient_norm": round(norm, 4),
            "learning_rate": learning_rate(step - 1, self.recipe.optimiser),
            "step_s": round(seconds, 4),
            "trained_s": round(self.progress.trained_s + seconds, 1),
        }
        self._note("step", step, **row)

    def _note(self, kind: str, step: int, **values) -> None:
        if self.fabric.is_global_zero:
            row = self.curve.add(kind, step, **values)
            logger.info("%s", row)
            if self.board is not None:
                self.board.add_row(row)
            self.report(row)

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            recipe = self.recipe.model_dump(mode="json")
            save_state(self.state_path, self.raw_model, self.ema, self.raw_optimiser, self.progress, recipe)
        self.fabric.barrier()

    def _save_average(self, path: Path, sdr_db: float | None = None) -> None:
        """The averaged weights as a model that can be used at once."""
        if not self.fabric.is_global_zero:
            return
        from tsbs_daw.network import checkpoint

        facts = {"recipe": self.recipe.name, "step": str(self.progress.step), "songs": self.progress.songs}
        if sdr_db is not None:
            facts["validation_sdr_db"] = f"{sdr_db:.3f}"
        checkpoint.save(self.ema, path, facts)

    def _agree(self, stop: bool) -> bool:
        """All devices stop at the same step: when any wants to."""
        if self.fabric.world_size == 1:
            return stop
        wish = torch.tensor(float(stop), device=self.fabric.device)
        return bool(self.fabric.all_reduce(wish, reduce_op="sum") > 0)

    def _read_data(self, options: RunOptions) -> tuple[list[SongFolder], list[SongFolder]]:
        stems, rate = self.config.stems, self.config.sample_rate
        folders = split_songs(options.data, stems)
        with self.fabric.rank_zero_first():  # the first process reads the songs, the others find its cache
            read = [read_songs(part, stems, rate, cache=options.out / "song-levels.json") for part in folders]
        problems = [problem for _, part in read for problem in part]
        if options.skip_broken:
            for problem in problems if self.fabric.is_global_zero else ():
                logger.warning("left out: %s", problem)
        else:
            require_whole(problems, options.data)
        songs, held_out = (part for part, _ in read)
        if not songs or not held_out:
            raise DatasetError(f"no whole song is left in {options.data}, to train on or to validate on")
        logger.info("%s songs to train on, %s to validate on", len(songs), len(held_out))
        return songs, held_out

    def _note_songs(self, songs: list[SongFolder]) -> None:
        digest = hashlib.sha256("\n".join(f"{song.name} {song.samples}" for song in songs).encode()).hexdigest()
        if self.fabric.is_global_zero and self.progress.songs not in ("", digest):
            logger.warning("the training songs are not those that this run began with; the data order changes here")
        self.progress.songs = digest


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)
