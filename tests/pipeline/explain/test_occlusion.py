from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model_defs import create_model
from pipeline.errors import InputError
from pipeline.explain.occlusion import occlusion


class CornerReader(nn.Module):
    """Says class 1 by the brightness of the upper left quarter alone, and class 0 by its darkness."""

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, 0, :4, :4].mean(dim=(1, 2))
        return torch.stack([-corner, corner], dim=1)


BRIGHT = torch.ones(1, 1, 8, 8)


def test_only_what_is_read_is_worth_something() -> None:
    worth = occlusion(CornerReader().eval(), BRIGHT, torch.tensor([1]), cover=4, stride=4)
    assert worth.shape == (1, 2, 2)
    # Covered, the corner is 0 and both classes are equally likely.
    lost = torch.tensor([-1.0, 1.0]).log_softmax(0)[1] - torch.tensor([0.0, 0.0]).log_softmax(0)[1]
    torch.testing.assert_close(worth[0], torch.tensor([[float(lost), 0.0], [0.0, 0.0]]))


def test_what_speaks_against_a_class_is_worth_less_than_nothing_to_it() -> None:
    for_it, against_it = (occlusion(CornerReader().eval(), BRIGHT, torch.tensor([k]), cover=4) for k in (1, 0))
    assert for_it[0, 0, 0] > 0 > against_it[0, 0, 0]


def test_a_place_is_worth_the_mean_over_the_covers_on_it() -> None:
    """Strides of half a cover: the covers that reach a place cover all, half or a quarter of the corner."""
    model = CornerReader().eval()
    worth = occlusion(model, BRIGHT, torch.tensor([1]), cover=4, stride=2)
    assert worth.shape == (1, 4, 4)

    def lost(seen: float) -> float:
        return float(torch.tensor([-1.0, 1.0]).log_softmax(0)[1] - torch.tensor([-seen, seen]).log_softmax(0)[1])

    # Covers with their upper left at -2, 0 and 2 in each direction; that at 0, 0 covers all of the corner.
    first = (lost(0.75) + lost(0.5) + lost(0.5) + lost(0.0)) / 4
    second = (lost(0.0) + lost(0.5) + lost(0.5) + lost(0.75)) / 4
    torch.testing.assert_close(worth[0, 0, 0], torch.tensor(first))
    torch.testing.assert_close(worth[0, 1, 1], torch.tensor(second))
    assert worth[0, 3, 3] == 0


def test_an_image_is_worth_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = create_model("resnet_small", num_classes=3, img_size=32).eval()
    images, classes = torch.randn(3, 3, 32, 32), torch.tensor([2, 0, 1])
    together = occlusion(model, images, classes)
    alone = torch.cat([occlusion(model, images[i : i + 1], classes[i : i + 1]) for i in range(3)])
    assert together.shape == (3, 8, 8)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_size_that_no_stride_divides_has_its_edges_too() -> None:
    worth = occlusion(CornerReader().eval(), torch.ones(1, 1, 28, 28), torch.tensor([1]))
    assert worth.shape == (1, 10, 10)  # covers of 7 pixels, 3 apart
    assert worth.isfinite().all()


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(InputError, match="asked for classes \\[2\\]"):
        occlusion(CornerReader().eval(), BRIGHT, torch.tensor([2]))
    with pytest.raises(InputError, match="a cover of 9 pixels is larger"):
        occlusion(CornerReader().eval(), BRIGHT, torch.tensor([0]), cover=9)
    with pytest.raises(InputError, match="call eval"):
        occlusion(CornerReader().train(), BRIGHT, torch.tensor([0]))
