from __future__ import annotations

import pytest
import torch

from rdc_bench.core.randomness import draws_for, generator, normal, only_row, row_keys, seed_of


def test_seeds_are_pinned() -> None:
    """Stored results stay reproducible only as long as these values do."""
    assert seed_of("image", 3, "pgd", 0) == 8821657812258370008
    assert 0 <= seed_of(0) < 2**63
    assert seed_of("1") != seed_of(1)
    assert seed_of(1, 2) != seed_of(12)


def test_noise_of_a_row_is_a_function_of_its_key_alone() -> None:
    keys = [("a", i) for i in range(4)]
    noise = normal(keys, (1, 3, 3))
    assert torch.equal(noise[[2, 0]], normal([keys[2], keys[0]], (1, 3, 3)))
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(torch.randn(5, generator=generator("k")), torch.randn(5, generator=generator("k")))


def test_large_noise_is_standard_normal() -> None:
    noise = normal([(i,) for i in range(100)], (1000,))
    assert noise.mean().abs() < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_calls_and_copies_draw_anew() -> None:
    with draws_for([("a",), ("b",)]):
        first, second = row_keys(4), row_keys(2)
    assert first == [("a", 0, 0), ("b", 0, 0), ("a", 0, 1), ("b", 0, 1)]
    assert second == [("a", 1, 0), ("b", 1, 0)]


def test_announcements_nest_and_start_over() -> None:
    with draws_for([("a",)]):
        row_keys(1)
        with draws_for([("b",)]):
            assert row_keys(1) == [("b", 0, 0)]
        assert row_keys(1) == [("a", 1, 0)]
    with draws_for([("a",)]):
        assert row_keys(1) == [("a", 0, 0)]


def test_a_batch_that_cannot_be_matched_is_refused() -> None:
    with draws_for([("a",), ("b",)]), pytest.raises(ValueError, match="3 images, no multiple of the 2"):
        row_keys(3)


def test_without_announcement_draws_are_fresh() -> None:
    assert row_keys(2) != row_keys(2)
    assert len(set(row_keys(3))) == 3
    with only_row(0):
        assert len(row_keys(2)) == 2


def test_a_single_row_draws_as_it_would_alone() -> None:
    with draws_for([("a",), ("b",)]):
        row_keys(2)
        with only_row(0):
            row_keys(1), row_keys(1)
        with only_row(1):
            assert row_keys(2) == [("b", 1, 0), ("b", 1, 1)]
        assert row_keys(2) == [("a", 3, 0), ("b", 2, 0)]


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    normal([("a",)], (3,))
    generator("a")
    row_keys(2)
    assert torch.equal(torch.get_rng_state(), state)
