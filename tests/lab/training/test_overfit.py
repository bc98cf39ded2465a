"""The proof that network, loss and gradients are right: a network learns one segment of three seconds by heart."""

from __future__ import annotations

import pytest
import torch
from signals import song
from song_files import STEMS

from tsbs_daw.lab.evaluation.evaluate import usdr
from tsbs_daw.lab.training.objective import TwoStageLoss
from tsbs_daw.lab.training.optimiser import make_optimiser
from tsbs_daw.lab.training.recipe import LossPart, OptimiserPart
from tsbs_daw.network import FULL, TINY, ModelConfig, TwoStageSeparator

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def overfit(config: ModelConfig, *, steps: int, learning_rate: float) -> dict[str, float]:
    """SDR of each stem, in dB, after so many steps on one mono segment, at a rate that falls to nothing."""
    torch.manual_seed(0)
    stems = song(3.0)
    targets = torch.stack([torch.from_numpy(stems[stem][:1]) for stem in STEMS])[None].to(DEVICE)
    model, loss = TwoStageSeparator(config).to(DEVICE).train(), TwoStageLoss(LossPart(sdr_weight=0.1)).to(DEVICE)
    model.checkpointing = True
    optimiser = make_optimiser(model, OptimiserPart(kind="muon", learning_rate=learning_rate, weight_decay=0))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 10) * (1 - step / steps)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=config is FULL):
            output = model(targets.sum(1))
        optimiser.zero_grad()
        loss(output.estimates.float(), output.mask_estimates.float(), targets).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    with torch.no_grad():
        estimates = model.eval()(targets.sum(1)).estimates[0].cpu().numpy()
    return {stem: usdr(targets[0, index].cpu().numpy(), estimates[index]) for index, stem in enumerate(STEMS)}


def test_the_tiny_model_overfits_one_segment_to_20_db():
    scores = overfit(TINY, steps=40, learning_rate=4e-2)
    assert min(scores.values()) > 20, scores


@pytest.mark.long
@pytest.mark.timeout(10_800)
def test_the_full_model_overfits_one_segment_to_20_db():
    scores = overfit(FULL, steps=45, learning_rate=2e-2)
    print(scores)
    assert min(scores.values()) > 20, scores
