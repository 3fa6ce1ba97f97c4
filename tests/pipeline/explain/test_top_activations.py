"""Promises of top activations: the right images, each once, with the patch that did it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.explain.deconvnet import Box, activations, deconvnet
from pipeline.explain.top_activations import top_activations


def bright_spot() -> nn.Sequential:
    """Channel 0 answers to a bright pixel with the 2 x 2 pixels below and right of it, channel 1 to nothing."""
    layer = nn.Conv2d(1, 2, 2)
    layer.weight.data = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]], [[[-1.0, -1.0], [-1.0, -1.0]]]])
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.ReLU()).eval()


def spots(*places: tuple[int, int, float]) -> Tensor:
    """Images of 4 x 4 pixels, black but for one."""
    images = torch.zeros(len(places), 1, 4, 4)
    for image, (row, column, value) in zip(images, places, strict=True):
        image[0, row, column] = value
    return images


def test_the_strongest_image_comes_with_its_patch_and_projection() -> None:
    images = spots((1, 2, 3.0), (0, 0, 9.0), (2, 1, 6.0))
    (top,) = top_activations(bright_spot(), [(images, torch.tensor([70, 80, 90]))], layer=1, channels=[0], k=2)
    assert (top.channel, [e.image_id for e in top.excitations]) == (0, [80, 90])
    first, second = top.excitations
    assert (first.value, first.position, first.box) == (9.0, (0, 0), Box(0, 0, 2, 2))
    assert (second.value, second.position, second.box) == (6.0, (2, 1), Box(2, 1, 4, 3))
    torch.testing.assert_close(second.patch, torch.tensor([[[6.0, 0.0], [0.0, 0.0]]]))
    torch.testing.assert_close(second.projection, torch.tensor([[[6.0, 0.0], [0.0, 3.0]]]))


def test_an_image_counts_once_and_a_silent_channel_has_no_images() -> None:
    both = spots((0, 0, 5.0)) + spots((2, 2, 4.0))
    excited, silent = top_activations(bright_spot(), [(both, torch.tensor([1]))], layer="1", channels=[0, 1])
    assert [(e.image_id, e.value) for e in excited.excitations] == [(1, 5.0)]
    assert (silent.channel, silent.excitations) == (1, ())


def test_of_equal_answers_the_earlier_image_comes_first() -> None:
    images = spots(*[(1, 1, 2.0)] * 5)
    stream = [(images[:2], torch.tensor([9, 8])), (images[2:], torch.tensor([7, 6, 5]))]
    (top,) = top_activations(bright_spot(), stream, layer=1, channels=[0], k=3)
    assert [e.image_id for e in top.excitations] == [9, 8, 7]


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.ReLU(inplace=True)
    ).eval()


def test_they_are_those_of_the_whole_data_set_however_it_is_batched(net: nn.Sequential) -> None:
    torch.manual_seed(1)
    images, ids = torch.randn(40, 3, 12, 12), torch.randperm(1000)[:40]
    maximum = activations(net, images, 4).amax(dim=(2, 3))
    for size in (40, 7, 1):
        stream = zip(images.split(size), ids.split(size), strict=True)
        for top in top_activations(net, stream, layer=4, channels=[3, 0], k=5):
            values, order = maximum[:, top.channel].sort(descending=True)
            assert [e.image_id for e in top.excitations] == ids[order[:5]].tolist()
            torch.testing.assert_close(torch.tensor([e.value for e in top.excitations]), values[:5])


def test_patch_and_projection_are_cut_from_their_image(net: nn.Sequential) -> None:
    torch.manual_seed(1)
    images = torch.randn(10, 3, 12, 12)
    for top in top_activations(net, [(images, torch.arange(10))], layer=-1, channels=range(4), k=3):
        for e in top.excitations:
            image = images[e.image_id]
            assert torch.equal(e.patch, e.box.crop(image))
            whole = deconvnet(net, image[None], -1, top.channel, e.position)[0]
            torch.testing.assert_close(e.projection, e.box.crop(whole))
            assert whole.count_nonzero() == e.projection.count_nonzero() > 0


def test_memory_holds_the_best_images_and_not_their_batches(net: nn.Sequential) -> None:
    batches: list[weakref.ref[np.ndarray]] = []
    limit = 0

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal limit
        random = np.random.default_rng(0)
        for step in range(30):
            batch = random.standard_normal((4, 3, 12, 12), dtype=np.float32)
            batches.append(weakref.ref(batch))  # which a tensor made of it, and every view of that, keeps alive
            limit = max(limit, sum(batch() is not None for batch in batches))
            yield torch.from_numpy(batch), torch.arange(4) + 4 * step

    (top,) = top_activations(net, stream(), layer=4, channels=[1], k=9)
    assert len({e.image_id // 4 for e in top.excitations}) > 3  # of as many batches
    assert limit <= 2  # the one at work and the next


def test_what_cannot_be_found_is_refused(net: nn.Sequential) -> None:
    stream = [(torch.zeros(1, 3, 12, 12), torch.zeros(1))]
    with pytest.raises(InputError, match="k must be 1 or more, not 0"):
        top_activations(net, stream, layer=4, channels=[0], k=0)
    with pytest.raises(InputError, match=r"channels \[1, 4\] of a layer that has 4, from 0"):
        top_activations(net, stream, layer=4, channels=[1, 4])
    with pytest.raises(InputError, match="no layer 5; the net has 5"):
        top_activations(net, stream, layer=5, channels=[0])
