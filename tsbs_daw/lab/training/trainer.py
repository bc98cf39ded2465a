"""A training run: reads songs and a recipe, writes weights and a curve; can be stopped and resumed at any step.

Files in the run's folder:
    recipe.json           the recipe at the start of the run
    last.safetensors      the whole state, written regularly (tsbs_daw.lab.training.run_folder)
    best.safetensors      the averaged weights with the best validation SDR: a usable model
    curve.jsonl           loss, rate and validation SDR by step
    bank-*                the decoded songs (tsbs_daw.lab.training.bank)
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from tsbs_daw.core.errors import NonFiniteLoss, SettingsError
from tsbs_daw.lab.training.acceleration import BlockCompiler, choose_precision, tune_device
from tsbs_daw.lab.training.bank import Sources
from tsbs_daw.lab.training.excerpts import TrainingExcerpts, validation_excerpts
from tsbs_daw.lab.training.objective import LossTerms, TwoStageLoss, validate
from tsbs_daw.lab.training.optimiser import (
    Clock,
    band_levels,
    clip_gradients,
    ema_decay,
    learning_rate,
    make_optimiser,
    update_average,
)
from tsbs_daw.lab.training.recipe import Recipe
from tsbs_daw.lab.training.run_folder import Board, Curve, Progress, load_state, save_state, write_model, write_tensors
from tsbs_daw.separation.devices import is_out_of_memory

logger = logging.getLogger(__name__)

LAST_LOOK_S = 3.0  # least time reserved for the last validation and for writing, in a run by the clock
MAX_FAILURES = 5  # consecutive failures of the device, or failures of the loss in total, before a run ends


@dataclass(frozen=True)
class RunOptions:
    """Options of one call of `train`, which are not part of the recipe.

    Attributes:
        data: One folder of songs, or several.
        out: The run's folder.
        resume: Whether to resume the run in `out`.
        max_minutes: Stop after this time; None to train until the recipe's last step.
        accelerator: Lightning Fabric's name of the accelerator.
        devices: Lightning Fabric's devices.
        skip_broken: Whether to skip broken songs instead of failing.
        init: A model file to start from; ignored if its shape differs from the recipe's.
        minutes: Like max_minutes, but the learning rate follows the clock, so that the run ends with its final rate.
        export: File to write the best weights to in half precision, whenever they improve.
    """

    data: Path | tuple[Path, ...]
    out: Path
    resume: bool = False
    max_minutes: float | None = None
    accelerator: str = "auto"
    devices: int | str = 1
    skip_broken: bool = False
    init: Path | None = None
    minutes: float | None = None
    export: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.data,) if isinstance(self.data, Path) else tuple(self.data)


def train(
    recipe: Recipe,
    options: RunOptions,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[dict], None] = lambda row: None,
) -> Progress:
    """Train until the recipe's last step, the time limit, or `stop()`; the state is saved in each case.

    Args:
        recipe: The settings of the run.
        options: The options of this call.
        stop: Called between steps; returns whether to stop.
        report: Called with each row of the curve; if several processes train, only in one of them.

    Returns:
        The progress of the run.

    Raises:
        DatasetError: Songs are broken; raised before the first step.
        NonFiniteLoss: The loss is not finite.
        SettingsError: The folder already holds a run, and `resume` is not set.
    """
    begin = time.monotonic()
    if not options.resume and (options.out / "last.safetensors").exists():
        raise SettingsError(f"the folder {options.out} already holds a run; add --resume, or choose another folder")
    precision = choose_precision(recipe.optimiser.precision, options.accelerator)
    fabric = Fabric(accelerator=options.accelerator, devices=options.devices, precision=precision)
    fabric.launch()
    trainer = Trainer(fabric, recipe, options, report)
    if options.minutes is not None:
        trainer.follow_clock(begin + 60.0 * options.minutes)
    deadline = None if options.max_minutes is None else begin + 60.0 * options.max_minutes
    return trainer.run(lambda: stop() or (deadline is not None and time.monotonic() >= deadline))


class Trainer:
    """The state of a training run. Use `train`."""

    def __init__(self, fabric: Fabric, recipe: Recipe, options: RunOptions, report: Callable[[dict], None]):
        from tsbs_daw.network import TwoStageSeparator

        self.fabric, self.recipe, self.options, self.report = fabric, recipe, options, report
        self.out, self.config = options.out, recipe.model_config_value()
        self.state_path = self.out / "last.safetensors"
        self.out.mkdir(parents=True, exist_ok=True)
        tune_device(fabric.device, fabric.world_size)
        self.sources = Sources(fabric, recipe, options.folders, options.out, self.config, options.skip_broken)
        torch.manual_seed(recipe.seed)
        self.raw_model = TwoStageSeparator(self.config)
        if options.init is not None:
            self._begin_from(options.init)
        if recipe.optimiser.train == "map_stage":
            self.raw_model.freeze_mask_stage()
        self.raw_model.checkpointing = recipe.model.gradient_checkpointing
        part = recipe.validation
        self.validation_targets, _ = validation_excerpts(
            self.sources.held_out, segment_s=part.segment_s, excerpts=part.excerpts, seed=recipe.seed
        )
        levels = band_levels(self.raw_model, self.validation_targets) if recipe.optimiser.map_levels else None
        self.raw_optimiser = make_optimiser(self.raw_model, recipe.optimiser, levels)
        self.model, self.optimiser = fabric.setup(self.raw_model, self.raw_optimiser)
        self.parameters = [part for part in self.raw_model.parameters() if part.requires_grad]
        self.ema = copy.deepcopy(self.raw_model).requires_grad_(False).eval()
        self.loss = TwoStageLoss(recipe.loss, self.config.sample_rate).to(fabric.device)
        self.progress = Progress()
        self.clock: Clock | None = None
        self.board: Board | None = None
        if options.resume and self.state_path.exists():
            self.progress = load_state(self.state_path, self.raw_model, self.ema, self.raw_optimiser)
        self._note_songs()
        self.excerpts = TrainingExcerpts(
            self.sources.banks,
            recipe.data,
            recipe.augment,
            seed=recipe.seed,
            batch=recipe.optimiser.batch,
            rank=fabric.global_rank,
            device=fabric.device,
        )
        self._open_log()
        self._recent: list[Tensor] = []  # losses since the last row of the curve
        self._failures, self._rate_share, self._validated = 0, 1.0, -1
        self._good = copy.deepcopy(self.ema.state_dict())
        self.compiler = self._start_compiler()

    def _begin_from(self, path: Path) -> None:
        """Load the weights of a model to start from. Raises CheckpointError if the file is not a model."""
        from tsbs_daw.network import checkpoint

        if (loaded := checkpoint.load(path)).config == self.config:
            self.raw_model.load_state_dict(loaded.state_dict())
        else:
            logger.warning("%s is a network of another shape than the recipe's; training begins from random", path)

    def _open_log(self) -> None:
        if self.fabric.is_global_zero:
            self.curve = Curve(self.out / "curve.jsonl", resume_step=self.progress.step)
            if self.recipe.log.tensorboard:
                self.board = Board(self.out / "tensorboard", resume_step=self.progress.step)
            document = json.dumps(self.recipe.model_dump(mode="json"), indent=1)
            (self.out / "recipe.json").write_text(document, encoding="utf-8")

    def _start_compiler(self) -> BlockCompiler | None:
        if self.fabric.device.type != "cuda" or self.fabric.world_size > 1 or not self.recipe.optimiser.compile:
            return None
        bfloat16 = self.fabric._precision.precision == "bf16-mixed"
        return BlockCompiler(self.raw_model, self.excerpts.sizes(), self.out, bfloat16)

    def follow_clock(self, deadline: float) -> None:
        """Use the clock instead of `total_steps`: steps, the last validation and all writing end by `deadline`."""
        self.clock, self._reserved_s = Clock(deadline, self.progress.trained_s), LAST_LOOK_S
        self.clock.reserve(self._reserved_s)

    def run(self, stop: Callable[[], bool]) -> Progress:
        log = self.recipe.log
        self.sources.follow()
        self._looked = mark = time.monotonic()
        self._noted_s = self.progress.trained_s
        try:
            while not self._agree(self._is_over() or stop()):
                terms, norm = self._step_or_fall_back()
                step = self.progress.step
                if step % log.curve_every_steps == 0 or step == 1:
                    self._note_step(step, terms, norm, mark)
                self.progress.trained_s += time.monotonic() - mark
                if self._should_validate(step):
                    self._validate(step)
                if step % log.checkpoint_every_steps == 0 and self.clock is None:
                    self._save()
                if log.keep_every_steps and step % log.keep_every_steps == 0:
                    self._save_average(self.out / f"average-{step}.safetensors")
                mark = time.monotonic()
            if self.clock is not None and self._agree(self.clock.over) and self._validated != self.progress.step:
                self._validate(self.progress.step)
            self._save()
        finally:
            for part in (self.sources, self.compiler, self.board):
                if part is not None:
                    part.close()
        return self.progress

    def _is_over(self) -> bool:
        return self.clock.over if self.clock is not None else self.progress.step >= self.recipe.optimiser.total_steps

    def _should_validate(self, step: int) -> bool:
        part = self.recipe.validation
        if self.clock is not None:
            return self._agree(time.monotonic() - self._looked >= part.every_s)
        return step % part.every_steps == 0 or step == self.recipe.optimiser.total_steps

    def _step_or_fall_back(self) -> tuple[LossTerms, Tensor]:
        """Train one step. On CUDA, retry a failed step with lower demands on the GPU."""
        if self.compiler is not None:
            self.compiler.poll()
        while True:
            try:
                result = self._step()
            except (NonFiniteLoss, KeyboardInterrupt):
                raise
            except Exception as error:
                if self.fabric.device.type != "cuda" or self._failures >= MAX_FAILURES:
                    raise
                self._failures += 1
                self._ask_less(error)
            else:
                self._failures = 0
                return result

    def _ask_less(self, error: Exception) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        if self.compiler is not None and self.compiler.active:
            self.compiler.give_up(error)
        elif isinstance(error, RuntimeError) and is_out_of_memory(error) and self.excerpts.batch > 1:
            self.excerpts.batch //= 2
            logger.warning("the card's memory is out: %s examples a step from here on", self.excerpts.batch)
        else:
            logger.warning("step %s failed and is tried again: %s", self.progress.step, error)
        torch.cuda.empty_cache()

    def _step(self) -> tuple[LossTerms, Tensor]:
        """Train one step of the optimiser: forward and backward for each pass, clip, update, average."""
        self.model.train()
        settings, step = self.recipe.optimiser, self.progress.step
        for group in self.raw_optimiser.param_groups:
            group["lr"] = self._rate(step)
        total: Tensor | float = 0.0
        for index in range(settings.accumulate):
            targets = self.excerpts[step * settings.accumulate + index]
            with self.fabric.no_backward_sync(self.model, enabled=index + 1 < settings.accumulate):
                output = self.model(targets.sum(dim=1))
                terms = self.loss(output.estimates, output.mask_estimates, targets)
                self._require_finite(terms.total, targets)
                self.fabric.backward(terms.total / settings.accumulate)
            total = total + terms.total.detach() / settings.accumulate
        norm = clip_gradients(self.parameters, settings.clip_norm)
        self._require_finite(norm, targets)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        update_average(self.ema, self.raw_model, ema_decay(step, settings))
        self._recent.append(cast("Tensor", total))  # after one pass at least
        self.progress.step = step + 1
        return terms, norm

    def _rate(self, step: int) -> float:
        share = None if self.clock is None else self.clock.share
        return self._rate_share * learning_rate(step, self.recipe.optimiser, share)

    def _require_finite(self, value: Tensor, targets: Tensor) -> None:
        """Check a value on the CPU. On CUDA, a check would wait for the GPU; there `_recover` handles such steps."""
        if self.fabric.device.type == "cuda" or torch.isfinite(value.detach()).all():
            return
        path = self.out / f"nonfinite-step-{self.progress.step}.safetensors"
        write_tensors(path, {"targets": targets}, {"step": str(self.progress.step)})
        raise NonFiniteLoss(
            f"the loss or its gradient is not finite at step {self.progress.step}; the batch is saved as {path}; "
            "resume with a lower learning rate or a smaller clip_norm"
        )

    def _recover(self) -> None:
        """Return to the last validated weights, and halve the learning rate, because the loss stays non-finite."""
        if self._rate_share <= 0.5**MAX_FAILURES:
            raise NonFiniteLoss(f"the loss is not finite around step {self.progress.step}; lower the learning rate")
        self._rate_share /= 2
        logger.warning("the loss is not finite around step %s; restoring the last good weights", self.progress.step)
        self.raw_model.load_state_dict(self._good)
        self.ema.load_state_dict(self._good)
        self.raw_optimiser.state.clear()

    def _validate(self, step: int) -> None:
        begin, self._validated = time.monotonic(), step
        with self.fabric.autocast():
            score = validate(self.ema, self.validation_targets, self.config.stems, self.fabric)
        if score.mean_db == score.mean_db:
            self._good = copy.deepcopy(self.ema.state_dict())
        if self.fabric.is_global_zero:
            if score.mean_db > (float("-inf") if self.progress.best_sdr_db is None else self.progress.best_sdr_db):
                self.progress.best_sdr_db, self.progress.best_step = score.mean_db, step
                self._save_average(self.out / "best.safetensors", score.mean_db)
            if self.board is not None:
                self._sound(step, self.board)
            self._note("validation", step, seconds=round(time.monotonic() - begin, 2), **score.as_row())
        if self.clock is not None:
            self._save()
            self._looked = time.monotonic()
            if (more := self._looked - begin - self._reserved_s) > 0:
                self._reserved_s += more
                self.clock.reserve(more)

    @torch.no_grad()
    def _sound(self, step: int, board: Board) -> None:
        """Add the stems of the first validation excerpt to the board as audio."""
        mixture = torch.from_numpy(self.validation_targets[0].sum(axis=0))[None].to(self.fabric.device)
        with self.fabric.autocast():
            estimates = self.ema(mixture).estimates[0].float().cpu().numpy()
        for stem, audio in zip(self.config.stems, estimates, strict=True):
            board.add_audio(f"estimate/{stem}", audio, self.config.sample_rate, step)

    def _note_step(self, step: int, terms: LossTerms, norm: Tensor, mark: float) -> None:
        losses = torch.stack(self._recent)
        self._recent.clear()
        if not losses.isfinite().all() and losses.isfinite().float().mean() < 0.5:
            self._recover()
        # A GPU has finished its steps only now, where their losses were read; so the time of one is their mean.
        trained_s = self.progress.trained_s + time.monotonic() - mark
        step_s, self._noted_s = (trained_s - self._noted_s) / len(losses), trained_s
        row = {
            "loss": round(float(losses.mean()), 6),
            "final_loss": round(float(terms.final), 6),
            "mask_loss": round(float(terms.mask), 6),
            "gradient_norm": round(float(norm), 4),
            "learning_rate": self._rate(step - 1),
            "step_s": round(step_s, 4),
            "trained_s": round(trained_s, 1),
            "songs": self.excerpts.songs,
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
        """Save the averaged weights as a usable model."""
        if not self.fabric.is_global_zero:
            return
        from tsbs_daw.network import checkpoint

        facts = {"recipe": self.recipe.name, "step": str(self.progress.step), "songs": self.progress.songs}
        if sdr_db is not None:
            facts["validation_sdr_db"] = f"{sdr_db:.3f}"
            if self.options.export is not None:
                write_model(self.ema, self.options.export, facts, self.out)
        checkpoint.save(self.ema, path, facts)

    def _agree(self, stop: bool) -> bool:
        """Return whether any process wants to stop, so that all stop at the same step."""
        if self.fabric.world_size == 1:
            return stop
        stops = torch.tensor(float(stop), device=self.fabric.device)
        return bool(cast("Tensor", self.fabric.all_reduce(stops, reduce_op="sum")) > 0)

    def _note_songs(self) -> None:
        songs = [song for bank in self.sources.banks for song in bank.songs]
        digest = hashlib.sha256("\n".join(f"{song.name} {song.samples}" for song in songs).encode()).hexdigest()
        if self.fabric.is_global_zero and self.progress.songs not in ("", digest):
            logger.warning("the training songs are not those that this run began with; the data order changes here")
        self.progress.songs = digest
