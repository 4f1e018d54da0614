"""The path and the samplers on fields with a known answer."""

from __future__ import annotations

import pytest
import torch

from mmcore.flow import MIN_REST, SAMPLERS, euler, heun, interpolate, sample_levels, schedule, velocity, velocity_loss

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_one_datum_is_reached_exactly(sampler) -> None:
    """If all data is one point, the clean prediction is that point and the path is straight."""
    point, noise = torch.full((2, 3, 4), 0.7), torch.randn(2, 3, 4)
    states = list(sampler(lambda x, t: point, noise, schedule(5)))
    assert len(states) == 5
    torch.testing.assert_close(states[-1][0], point)
    torch.testing.assert_close(states[1][0], interpolate(point, noise, torch.tensor(0.4)))


def gaussian(mean: float, std: float):
    """E[data | x_t] for data from N(mean, std^2): linear in x_t."""

    def clean(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t.view(-1, 1, 1)
        gain = t * std**2 / (t**2 * std**2 + (1 - t) ** 2)
        return mean + gain * (x - t * mean)

    return clean


def test_gaussian_data_comes_out_with_its_mean_and_spread() -> None:
    """The exact flow maps noise n to mean + std * n; the end of the path is cut at 1 - t = MIN_REST."""
    noise = torch.randn(1, 64, 8)
    expected = 0.5 + 0.3 * noise
    coarse = list(euler(gaussian(0.5, 0.3), noise, schedule(25)))[-1][0]
    fine = list(euler(gaussian(0.5, 0.3), noise, schedule(200)))[-1][0]
    better = list(heun(gaussian(0.5, 0.3), noise, schedule(25)))[-1][0]
    errors = [float((x - expected).abs().mean()) for x in (coarse, fine, better)]
    assert errors[1] < errors[0] and errors[2] < errors[0]
    assert errors[1] < 0.02


def test_times() -> None:
    times = schedule(4)
    assert times.tolist() == [0, 0.25, 0.5, 0.75, 1]
    shifted = schedule(4, shift=3.0)
    assert shifted[0] == 0 and shifted[-1] == 1 and (shifted.diff() > 0).all()
    assert (shifted[1:-1] < times[1:-1]).all(), "a shift above 1 spends more steps near the noise"
    with pytest.raises(ValueError, match="at least 1"):
        schedule(0)


def test_the_loss_is_the_velocitys_squared_error() -> None:
    data, noise, guess = torch.randn(3, 5, 4), torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    t = torch.tensor([0.1, 0.5, 0.9])[:, None].expand(3, 5)
    x = interpolate(data, noise, t[..., None])
    truth = data - noise
    torch.testing.assert_close(velocity(data, x, t[..., None]), truth)
    expected = (velocity(guess, x, t[..., None]) - truth).square().mean(-1)
    torch.testing.assert_close(velocity_loss(guess, data, t), expected, rtol=1e-4, atol=1e-5)
    nearly_clean = velocity_loss(guess, data, torch.ones(3, 5))
    torch.testing.assert_close(nearly_clean, (guess - data).square().mean(-1) / MIN_REST**2)


def test_levels_lie_between_noise_and_data_and_lean_as_told() -> None:
    levels = sample_levels((4000,), -2.4, 1.4, torch.Generator().manual_seed(0))
    assert levels.min() > 0 and levels.max() < 1
    assert abs(float(levels.median()) - 0.083) < 0.01
    assert abs(float(torch.logit(levels).std()) - 1.4) < 0.05
