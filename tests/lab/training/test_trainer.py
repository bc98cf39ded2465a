from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.training.small_runs import make_recipe, write_songs
from lightning_fabric import Fabric
from safetensors.torch import load_file
from song_files import STEMS, write_song
from timeouts import PATIENCE_S

from tsbs_daw.cli import train as command
from tsbs_daw.core.errors import CheckpointError, DatasetError, NonFiniteLoss, SettingsError, UsageError
from tsbs_daw.lab.training import trainer
from tsbs_daw.lab.training.bank import SongBank
from tsbs_daw.lab.training.excerpts import TrainingExcerpts
from tsbs_daw.lab.training.objective import TwoStageLoss
from tsbs_daw.lab.training.optimiser import Clock, make_optimiser
from tsbs_daw.lab.training.recipe import Recipe
from tsbs_daw.lab.training.run_folder import Progress, export_best, read_curve
from tsbs_daw.lab.training.trainer import RunOptions, train
from tsbs_daw.network import TwoStageSeparator, checkpoint


def _run(recipe: Recipe, songs: Path, out: Path, **options):
    stop = options.pop("stop", lambda: False)
    return train(recipe, RunOptions(songs, out, accelerator="cpu", **options), stop)


class _After:
    """Asks to stop after so many steps."""

    def __init__(self, steps: int):
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def _same(one: Path, other: Path) -> bool:
    first, second = load_file(one / "last.safetensors"), load_file(other / "last.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimiser", [{"kind": "adamw"}, {"kind": "muon", "map_levels": True}])
def test_a_resumed_run_is_bit_equal_to_an_unbroken_one(songs, tmp_path, small_recipe, optimiser):
    recipe = small_recipe(optimiser={"accumulate": 2, **optimiser})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert _run(recipe, songs, whole).step == 6
    assert _run(recipe, songs, broken, stop=_After(1)).step == 1
    assert not _same(whole, broken)
    assert _run(recipe, songs, broken, resume=True, stop=_After(3)).step == 4
    assert _run(recipe, songs, broken, resume=True).step == 6
    assert _same(whole, broken)

    def losses(run: Path) -> list:
        return [(row["step"], row["loss"]) for row in read_curve(run / "curve.jsonl") if row["kind"] == "step"]

    assert losses(whole) == losses(broken)
    assert not list(broken.glob("*.tmp"))


def test_what_was_trained_after_the_last_saved_step_is_trained_again(songs, tmp_path, small_recipe):
    """A crash: the state of step 4 is on disk, the curve has step 5 already."""
    recipe = small_recipe()
    whole, crashed = tmp_path / "whole", tmp_path / "crashed"
    _run(recipe, songs, whole)
    _run(recipe, songs, crashed, stop=_After(4))
    state = (crashed / "last.safetensors").read_bytes()
    _run(recipe, songs, crashed, resume=True, stop=_After(1))
    (crashed / "last.safetensors").write_bytes(state)
    _run(recipe, songs, crashed, resume=True)
    assert _same(whole, crashed)
    steps = [row["step"] for row in read_curve(crashed / "curve.jsonl") if row["kind"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_training_lowers_the_loss_on_one_batch(songs, small_recipe):
    recipe = small_recipe(optimiser={"learning_rate": 5e-3})
    bank = SongBank.on_disk(songs / "bank", STEMS, 44100)
    bank.fill(sorted((songs / "train").iterdir()))
    batch = TrainingExcerpts([bank], recipe.data, recipe.augment, seed=1, batch=1)[0]
    torch.manual_seed(0)
    model, loss = TwoStageSeparator(recipe.model_config_value()), TwoStageLoss(recipe.loss)
    optimiser = make_optimiser(model, recipe.optimiser)
    values = []
    for _ in range(25):
        output = model(batch.sum(1))
        terms = loss(output.estimates, output.mask_estimates, batch)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        values.append((terms.total.item(), terms.mask.item()))
    assert values[-1][0] < 0.6 * values[0][0]
    assert values[-1][1] < 0.6 * values[0][1]


def test_the_map_stage_can_be_trained_on_a_mask_stage_that_stays(songs, tmp_path, small_recipe):
    _run(small_recipe(), songs, tmp_path / "first")
    begin = tmp_path / "first" / "best.safetensors"
    recipe = small_recipe(optimiser={"train": "map_stage"})
    assert _run(recipe, songs, tmp_path / "second", init=begin, stop=_After(4)).step == 4
    assert _run(recipe, songs, tmp_path / "second", resume=True).step == 6
    before, after = load_file(begin), load_file(tmp_path / "second" / "last.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[f"model.{name}"])}
    assert moved and not any(name.startswith("mask_") for name in moved)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Progress]:
    """The folder of a whole run of the small recipe, to read only, and how far the run came."""
    folder = tmp_path_factory.mktemp("trained")
    return folder / "run", _run(make_recipe(), write_songs(folder / "songs"), folder / "run")


def test_the_best_weights_are_a_model_ready_for_use(trained, small_recipe):
    run, progress = trained
    validations = [row for row in read_curve(run / "curve.jsonl") if row["kind"] == "validation"]
    assert [row["step"] for row in validations] == [3, 6]
    best = max(validations, key=lambda row: row["mean_sdr_db"])
    assert progress.best_step == best["step"]
    assert set(best["sdr_db"]) == set(best["mask_sdr_db"]) == set(best["mixture_sdr_db"]) == set(STEMS)
    model = checkpoint.load(run / "best.safetensors")
    assert model.config == small_recipe().model_config_value()
    assert checkpoint.read_metadata(run / "best.safetensors")["step"] == str(best["step"])


def test_the_export_is_the_best_model_in_half_precision(trained, tmp_path):
    run, _ = trained
    size = export_best(run, tmp_path / "small.safetensors")
    best, half = checkpoint.load(run / "best.safetensors"), checkpoint.load(tmp_path / "small.safetensors")
    assert size < 0.7 * (run / "best.safetensors").stat().st_size
    for name, value in best.state_dict().items():
        assert torch.allclose(half.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    facts = checkpoint.read_metadata(tmp_path / "small.safetensors")
    assert facts["recipe"] == "small"
    assert json.loads(facts["recipe_settings"])["seed"] == 3


def test_an_export_may_be_calibrated_on_songs_of_one_s_own(trained, songs, tmp_path):
    run, _ = trained
    export_best(run, tmp_path / "small.safetensors", songs / "valid")
    assert checkpoint.read_metadata(tmp_path / "small.safetensors")["calibrated_on"] == "1 songs"
    export_best(run, tmp_path / "as-it-is.safetensors")
    calibrated, plain = (
        checkpoint.load(tmp_path / f"{name}.safetensors").state_dict() for name in ("small", "as-it-is")
    )
    changed = {name for name in plain if not torch.equal(plain[name], calibrated[name])}
    assert changed and all(name.startswith(("map_estimator.weight3", "map_estimator.bias3")) for name in changed)
    with pytest.raises(DatasetError):
        export_best(run, tmp_path / "none.safetensors", tmp_path / "nothing")


def test_an_export_may_keep_a_share_of_the_weights_it_began_from(trained, tmp_path, small_recipe):
    run, _ = trained
    torch.manual_seed(7)
    older = TwoStageSeparator(small_recipe().model_config_value())
    checkpoint.save(older, tmp_path / "older.safetensors")
    export_best(run, tmp_path / "mean.safetensors", init=tmp_path / "older.safetensors", keep=0.25)
    own = checkpoint.load(run / "best.safetensors").state_dict()
    mean = checkpoint.load(tmp_path / "mean.safetensors").state_dict()
    for name, value in older.state_dict().items():
        assert torch.allclose(mean[name], 0.25 * value + 0.75 * own[name], rtol=1e-3, atol=1e-4)
    assert checkpoint.read_metadata(tmp_path / "mean.safetensors")["kept_of_init"] == "0.25"
    checkpoint.save(TwoStageSeparator(replace(older.config, d_state=8)), tmp_path / "other.safetensors")
    with pytest.raises(SettingsError, match="another shape"):
        export_best(run, tmp_path / "x.safetensors", init=tmp_path / "other.safetensors", keep=0.25)


def test_keeping_needs_something_to_keep_and_a_file_to_write(tmp_path):
    with pytest.raises(UsageError, match="--init"):
        command.command("tiny-bundled", tmp_path, export=tmp_path / "x.safetensors", keep=0.5)


def test_a_run_without_validated_weights_cannot_be_exported(tmp_path):
    with pytest.raises(CheckpointError, match=r"no best\.safetensors"):
        export_best(tmp_path, tmp_path / "x.safetensors")


def test_a_run_that_was_stopped_before_its_first_validation_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "StopOnSignal", lambda: None)
    for best_sdr_db, says in ((None, True), (1.5, False)):
        monkeypatch.setattr(trainer, "train", lambda *_, best=best_sdr_db: Progress(step=3, best_sdr_db=best))
        command.command("tiny-bundled", tmp_path / "run", [tmp_path])
        assert ("No best.safetensors yet" in capsys.readouterr().out) is says


def test_a_run_is_not_overwritten(songs, tmp_path, small_recipe):
    _run(small_recipe(), songs, tmp_path / "run", stop=_After(1))
    with pytest.raises(SettingsError, match="--resume"):
        _run(small_recipe(), songs, tmp_path / "run")


def test_a_run_begins_from_a_model_of_its_shape_and_from_random_otherwise(
    trained, songs, tmp_path, small_recipe, caplog
):
    best = trained[0] / "best.safetensors"
    _run(small_recipe(seed=4), songs, tmp_path / "second", init=best, max_minutes=0.0)
    begun = load_file(tmp_path / "second" / "last.safetensors")
    for name, value in load_file(best).items():
        assert torch.equal(begun[f"model.{name}"], value), name
    other = small_recipe(model={"overrides": {**small_recipe().model.overrides, "mask_blocks": 2}})
    assert _run(other, songs, tmp_path / "third", init=best, stop=_After(1)).step == 1
    assert "another shape" in caplog.text


def test_another_model_s_state_is_refused(songs, tmp_path, small_recipe):
    _run(small_recipe(), songs, tmp_path / "run", stop=_After(1))
    other = small_recipe(model={"overrides": {**small_recipe().model.overrides, "mask_blocks": 2}})
    with pytest.raises(CheckpointError, match="does not fit"):
        _run(other, songs, tmp_path / "run", resume=True)


def test_a_file_that_is_no_state_is_refused(songs, tmp_path, small_recipe):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.safetensors").write_bytes(b"no state at all")
    with pytest.raises(CheckpointError, match=r"last\.safetensors cannot be read"):
        _run(small_recipe(), songs, tmp_path / "run", resume=True)


def test_the_time_budget_stops_the_run_and_saves_it(songs, tmp_path, small_recipe):
    progress = _run(small_recipe(), songs, tmp_path / "run", max_minutes=0.0)
    assert progress.step == 0
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_by_the_clock_a_run_ends_annealed_validated_and_exported(songs, tmp_path, small_recipe, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(trainer, "Clock", lambda _, trained_s: Clock(60.0, trained_s, lambda: float(next(ticks))))
    recipe = small_recipe(optimiser={"total_steps": 10**6}, validation={"every_s": 0.1})
    export = tmp_path / "model.safetensors"
    progress = _run(recipe, songs, tmp_path / "run", minutes=1.0, export=export)
    rows = read_curve(tmp_path / "run" / "curve.jsonl")
    rates = [row["learning_rate"] for row in rows if row["kind"] == "step"]
    assert progress.step > 3 and rates[-1] < 0.2 * max(rates)
    assert rows[-1]["kind"] == "validation" and rows[-1]["step"] == progress.step
    assert sum(row["kind"] == "validation" for row in rows) > 1
    assert checkpoint.load(export).config == recipe.model_config_value()
    assert checkpoint.read_metadata(export)["step"] == str(progress.best_step)
    assert json.loads(checkpoint.read_metadata(export)["recipe_settings"])["name"] == "small"
    assert not list(tmp_path.rglob("*.tmp"))


def test_songs_that_come_while_a_run_lasts_are_taken_in(songs, tmp_path, small_recipe):
    for song in songs.glob("*/*"):
        (song / "song.json").write_text("{}")
    recipe = small_recipe(optimiser={"total_steps": 10**6}, data={"follow_s": 0.05})

    def stop() -> bool:
        if not (songs / "train" / "new").exists():
            write_song(songs / "train" / "new", 21)
            (songs / "train" / "new" / "song.json").write_text("{}")
        rows = [row for row in read_curve(tmp_path / "run" / "curve.jsonl") if row["kind"] == "step"]
        return bool(rows) and rows[-1]["songs"] == 4

    _run(recipe, songs, tmp_path / "run", stop=stop, max_minutes=PATIENCE_S / 60)
    assert read_curve(tmp_path / "run" / "curve.jsonl")[-1]["songs"] == 4


def test_a_run_waits_for_the_first_songs_that_others_write(tmp_path, small_recipe):
    def write() -> None:
        for name in ("train/a", "valid/b"):
            time.sleep(0.3)
            write_song(tmp_path / "songs" / name, 3)
            (tmp_path / "songs" / name / "song.json").write_text("{}")

    writer = threading.Thread(target=write)
    writer.start()
    recipe = small_recipe(data={"follow_s": 60})
    assert _run(recipe, tmp_path / "songs", tmp_path / "run", stop=_After(1)).step == 1
    writer.join()


FULL_CARD = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
]


@pytest.mark.parametrize("error", FULL_CARD, ids=lambda error: str(error)[:6])
def test_a_card_that_is_full_gets_smaller_batches(songs, tmp_path, small_recipe, error):
    fabric = Fabric(accelerator="cpu", devices=1)
    recipe = small_recipe(optimiser={"batch": 4})
    one = trainer.Trainer(fabric, recipe, RunOptions(songs, tmp_path / "run"), lambda row: None)
    one._ask_less(error)
    assert one.excerpts[0].shape[0] == 2
    one._step()
    assert one.progress.step == 1


def test_several_folders_of_songs_are_drawn_from_by_weight(songs, tmp_path, small_recipe):
    other = tmp_path / "other"
    write_song(other / "train" / "a", 31)
    write_song(other / "valid" / "b", 32)
    recipe = small_recipe(data={"source_weights": [0.7, 0.3]})
    options = RunOptions((songs, other), tmp_path / "run", accelerator="cpu")
    assert train(recipe, options, _After(2)).step == 2
    assert read_curve(tmp_path / "run" / "curve.jsonl")[0]["songs"] == 4
    with pytest.raises(SettingsError, match="source_weights has 2 numbers and --data 1"):
        _run(recipe, songs, tmp_path / "second")


def test_broken_songs_are_reported_before_the_first_step(songs, tmp_path, small_recipe):
    (songs / "train" / "song 1" / "bass.wav").write_bytes(b"RIFF")
    (songs / "valid" / "held out" / "drums.wav").unlink()
    write_song(songs / "valid" / "whole", 11)
    with pytest.raises(DatasetError, match=r"(?s)song 1: bass\.wav.*held out: drums\.wav is missing"):
        _run(small_recipe(), songs, tmp_path / "run")
    assert not (tmp_path / "run" / "curve.jsonl").exists()
    assert _run(small_recipe(), songs, tmp_path / "run", skip_broken=True, stop=_After(1)).step == 1


def test_a_loss_that_is_not_finite_stops_the_run_with_the_batch(songs, tmp_path, small_recipe):
    recipe = small_recipe(optimiser={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(NonFiniteLoss, match="the batch is saved as") as raised:
        _run(recipe, songs, tmp_path / "run")
    (path,) = (tmp_path / "run").glob("nonfinite-step-*.safetensors")
    assert str(path) in str(raised.value)
    targets = load_file(path)["targets"]
    assert targets.shape == (1, 4, 2, 22050)
    assert np.isfinite(targets.numpy()).all()


def test_mixed_precision_and_gradient_checkpointing_train(songs, tmp_path, small_recipe):
    overrides = {**small_recipe().model.overrides, "channel_activation": "prelu"}
    recipe = small_recipe(
        model={"gradient_checkpointing": True, "overrides": overrides},
        optimiser={"precision": "bf16-mixed", "total_steps": 2, "kind": "muon"},
    )
    _run(recipe, songs, tmp_path / "run")
    state = load_file(tmp_path / "run" / "last.safetensors")
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in state.values())


def test_numbers_and_sound_reach_tensorboard(songs, tmp_path, small_recipe):
    pytest.importorskip("tensorboard")
    _run(small_recipe(log={"tensorboard": True}, optimiser={"total_steps": 3}), songs, tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"step/loss", "sdr_db/vocals", "mask_sdr_db/drums"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["audio"]) == {f"estimate/{stem}" for stem in STEMS}


def test_the_command_trains_with_two_processes_and_exports(songs, tmp_path, small_recipe):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(small_recipe().model_dump(mode="json")), encoding="utf-8")
    out, exported = tmp_path / "run", tmp_path / "model.safetensors"
    command = [sys.executable, "-m", "tsbs_daw", "train", str(recipe), "--data", str(songs), "--out", str(out)]
    command += ["--device", "cpu", "--devices", "2", "--set", "optimiser.total_steps=2", "--export", str(exported)]
    environment = {**os.environ, "TSBS_DAW_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "Trained 2 steps." in done.stdout
    assert done.stdout.count("validation SDR") == 1
    assert checkpoint.load(exported).config.stems == STEMS
