from __future__ import annotations

import pytest
import torch
from song_files import STEMS

from tsbs_daw.lab.training.objective import TwoStageLoss, spectral_tilt
from tsbs_daw.lab.training.recipe import LossPart
from tsbs_daw.network import TwoStageSeparator

PLAIN = {"n_ffts": (256,), "equalise_stems": False}


def _targets(batch: int = 2, samples: int = 2000) -> torch.Tensor:
    return 0.1 * torch.randn(batch, len(STEMS), 2, samples, generator=torch.Generator().manual_seed(0))


def test_perfect_estimates_cost_nothing():
    targets = _targets()
    terms = TwoStageLoss(LossPart(n_ffts=(256,)))(targets, targets, targets)
    assert terms.total == terms.final == terms.mask == 0


def test_the_time_term_is_the_mean_absolute_difference():
    loss = TwoStageLoss(LossPart(**PLAIN, spectrum_weight=0, final_weight=1, mask_weight=0.5))
    targets = _targets()
    terms = loss(targets + 0.25, targets - 0.5, targets)
    assert terms.final.item() == pytest.approx(0.25, rel=1e-5)
    assert terms.mask.item() == pytest.approx(0.5, rel=1e-5)
    assert terms.total.item() == pytest.approx(0.25 + 0.5 * 0.5, rel=1e-5)


def test_the_spectral_term_is_the_mean_of_both_parts_over_the_window_s_norm():
    loss = TwoStageLoss(LossPart(**PLAIN, time_weight=0, mask_weight=0))
    targets = _targets(1)
    estimates = targets + _targets(1).flip(-1)
    window = torch.hann_window(256)
    difference = (estimates - targets).flatten(0, 2)
    spectrum = torch.stft(difference, 256, 64, window=window, return_complex=True)
    expected = (spectrum.real.abs().mean() + spectrum.imag.abs().mean()) / window.square().sum().sqrt()
    assert loss(estimates, estimates, targets).total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_several_transforms_share_the_weight_of_one():
    targets = _targets()
    parts = [TwoStageLoss(LossPart(n_ffts=sizes, time_weight=0))(0 * targets, 0 * targets, targets).total
             for sizes in ((256,), (512,), (256, 512))]  # fmt: skip
    assert parts[2].item() == pytest.approx((parts[0] + parts[1]).item() / 2, rel=1e-5)


def test_a_quiet_song_matters_as_much_as_a_loud_one():
    loss, targets = TwoStageLoss(LossPart(n_ffts=(256,))), 3 * _targets()
    wrong = targets.roll(7, -1)
    loud, quiet = loss(wrong, wrong, targets).total, loss(wrong / 2, wrong / 2, targets / 2).total
    assert quiet.item() == pytest.approx(loud.item(), rel=0.05)


def test_a_quiet_stem_matters_about_as_much_as_a_loud_one():
    loss, targets = TwoStageLoss(LossPart(n_ffts=(256,), mask_weight=0)), _targets()
    targets[:, 0] *= 0.25

    def cost_of_losing(stem: int) -> float:
        estimates = targets.clone()
        estimates[:, stem] = 0
        return loss(estimates, estimates, targets).total.item()

    assert 0.25 < cost_of_losing(0) / cost_of_losing(1) <= 1.0


def test_silence_has_a_finite_loss_and_gradient():
    loss = TwoStageLoss(LossPart(n_ffts=(256,)))
    targets = torch.zeros(1, 4, 2, 1000)
    estimates = torch.full_like(targets, 1e-3).requires_grad_()
    total = loss(estimates, estimates, targets).total
    total.backward()
    assert 0 < total.item() < 10
    assert torch.isfinite(estimates.grad).all()


def test_an_excerpt_shorter_than_a_window_can_be_trained_on():
    loss = TwoStageLoss(LossPart(n_ffts=(2048,)))
    targets = _targets(1, 300)
    assert torch.isfinite(loss(0 * targets, 0 * targets, targets).total)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter_of_both_stages(small_recipe, checkpointing):
    torch.manual_seed(0)
    model = TwoStageSeparator(small_recipe().model_config_value()).train()
    model.checkpointing = checkpointing
    targets = _targets(1, 11025)
    output = model(targets.sum(1))
    TwoStageLoss(LossPart(n_ffts=(512,)))(output.estimates, output.mask_estimates, targets).total.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not without


def test_the_map_stage_learns_from_the_final_estimate_alone(small_recipe):
    torch.manual_seed(0)
    model = TwoStageSeparator(small_recipe().model_config_value()).train()
    targets = _targets(1, 11025)
    output = model(targets.sum(1))
    settings = LossPart(n_ffts=(512,), final_weight=0)
    TwoStageLoss(settings)(output.estimates, output.mask_estimates, targets).total.backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"mask_split", "mask_blocks", "mask_estimator"}


def test_the_error_s_level_counts_in_db_and_the_same_at_every_loudness():
    loss = TwoStageLoss(LossPart(**PLAIN, time_weight=0, spectrum_weight=0, sdr_weight=1, mask_weight=0))
    targets = _targets(3)
    error = 0.5 * _targets(3).flip(-1)
    ten_db = loss(targets + error, targets, targets).total - loss(targets + error / 10**0.5, targets, targets).total
    assert ten_db.item() == pytest.approx(10, abs=1)  # a little less: the floor of -30 dB is near
    quiet = loss((targets + error) / 8, targets / 8, targets / 8).total
    assert quiet.item() == pytest.approx(loss(targets + error, targets, targets).total.item(), abs=0.3)


def test_no_error_is_better_than_30_db_below_the_mixture():
    loss = TwoStageLoss(LossPart(**PLAIN, time_weight=0, spectrum_weight=0, sdr_weight=1, mask_weight=0))
    targets = _targets()
    assert loss(targets, targets, targets).total.item() == pytest.approx(-30)
    silence = torch.zeros_like(targets)
    estimates = torch.full_like(silence, 1e-6).requires_grad_()
    loss(estimates, estimates, silence).total.backward()
    assert torch.isfinite(estimates.grad).all()


def test_the_tilt_lifts_the_treble_and_leaves_white_noise_alone():
    tilt = spectral_tilt(2048, 44100, 3.0)
    assert tilt.mean().item() == pytest.approx(1)
    octave = round(2 * 4000 * 2048 / 44100), round(4000 * 2048 / 44100)
    assert (tilt[octave[0]] / tilt[octave[1]]).item() == pytest.approx(10 ** (3 / 20), rel=0.01)
    assert tilt[:9].unique().numel() == 1, "level below 200 Hz"
    assert torch.equal(spectral_tilt(2048, 44100, 0.0), torch.ones(1025))

    targets = _targets(2, 40000)
    noise = 0.1 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
    plain, tilted = (TwoStageLoss(LossPart(time_weight=0, tilt_db_per_octave=db)) for db in (0.0, 3.0))
    ratio = tilted(targets + noise, targets, targets).total / plain(targets + noise, targets, targets).total
    assert ratio.item() == pytest.approx(1, rel=0.02)
