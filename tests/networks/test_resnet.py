from __future__ import annotations

import torch

from rdc_bench.networks import SmallResNet


def test_normalises_by_the_given_statistics() -> None:
    torch.manual_seed(0)
    plain = SmallResNet(3, 5, widths=(8, 16), mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    shifted = SmallResNet(3, 5, widths=(8, 16), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2)).eval()
    shifted.load_state_dict(plain.state_dict(), strict=True)
    x = torch.rand(2, 3, 12, 12)
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.5, 0.25, 0.2])[:, None, None]
    assert shifted(x).shape == (2, 5)
    torch.testing.assert_close(shifted(x), plain((x - mean) / std))


def test_logits_of_an_image_do_not_depend_on_its_batch() -> None:
    net = SmallResNet(1, 4, widths=(8, 8)).eval()
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(net(x)[2:], net(x[2:]))
