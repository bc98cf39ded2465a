"""The proof that network, loss and gradients are right: the full model learns one segment by heart."""

from __future__ import annotations

import pytest
import torch
from signals import song
from song_files import STEMS

from tsbs_daw.evaluation.metrics import usdr
from tsbs_daw.model import FULL, TwoStageSeparator
from tsbs_daw.training.loss import TwoStageLoss
from tsbs_daw.training.recipe import LossPart


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="hours on a CPU")
def test_the_full_model_overfits_one_segment_to_20_db():
    torch.manual_seed(0)
    stems = song(3.0)
    targets = torch.stack([torch.from_numpy(stems[stem]) for stem in STEMS])[None].cuda()
    model, loss = TwoStageSeparator(FULL).cuda().train(), TwoStageLoss(LossPart()).cuda()
    model.checkpointing = True
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for step in range(1500):
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min(1.0, step / 50) * (1 - step / 1500)
        output = model(targets.sum(1))
        optimiser.zero_grad()
        loss(output.estimates, output.mask_estimates, targets).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    with torch.no_grad():
        estimates = model.eval()(targets.sum(1)).estimates[0].cpu().numpy()
    scores = {stem: usdr(targets[0, index].cpu().numpy(), estimates[index]) for index, stem in enumerate(STEMS)}
    assert min(scores.values()) > 20, scores
