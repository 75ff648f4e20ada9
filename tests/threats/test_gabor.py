from __future__ import annotations

import math

import torch

from rdc_bench.core.randomness import generator
from rdc_bench.threats.gabor import DENSITY, SIDE, kernel, noise, random_kernels, random_places


def test_a_kernel_is_a_gaussian_times_waves() -> None:
    deviation, periods, angle, directions = 0.2, 4.0, 0.3, 3
    found = kernel(*(torch.tensor([v]) for v in (deviation, periods, angle, directions)))[0]
    for row in (0, 5, 11, 20):
        for column in (1, 11, 17):
            x, y = column / (SIDE - 1) - 0.5, row / (SIDE - 1) - 0.5
            waves = 0.0
            for k in range(directions):
                turned = angle + math.pi * k / directions
                waves += math.cos(2 * math.pi * periods * (x * math.cos(turned) + y * math.sin(turned)))
            expected = waves * math.exp(-(x**2 + y**2) / (2 * deviation**2))
            torch.testing.assert_close(found[row, column], torch.tensor(expected), atol=1e-5, rtol=0)


def test_noise_is_a_weighted_sum_of_kernels_at_their_places() -> None:
    kernels = random_kernels(2, [generator(0), generator(1)])
    weights = torch.zeros(2, 40, 44)
    weights[:, 15, 20], weights[:, 22, 25] = 0.8, -0.3
    expected = torch.zeros(2, 1, 40, 44)
    expected[:, 0, 4:27, 9:32] += 0.8 * kernels
    expected[:, 0, 11:34, 14:37] -= 0.3 * kernels
    expected /= expected.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(noise(weights, kernels), expected, atol=1e-5, rtol=0)


def test_noise_fits_any_size_and_is_nothing_without_weights() -> None:
    kernels = random_kernels(1, [generator(2)])
    assert (noise(torch.zeros(1, 6, 6), kernels) == 0).all()
    for size in ((1, 1), (5, 9), (30, 12)):
        assert noise(torch.ones(1, *size), kernels).abs().max() == 1


def test_places_are_few_and_each_image_has_its_own() -> None:
    places = random_places((2, 3, 100, 120), [generator(3), generator(4)])
    share = places.double().mean(dim=(1, 2))
    assert ((share - DENSITY).abs() < 4 * math.sqrt(DENSITY / 12000)).all()
    assert not torch.equal(places[0], places[1])
