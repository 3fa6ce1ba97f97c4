"""InfoNCE against its formula, and its gradient over ranks against that of one process."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.contrastive.losses import content_keys, cosines, gather_rows, infonce, positive_pairs
from tests.forked import Forked


def by_hand(images: Tensor, texts: Tensor, scale: float, positives: Tensor) -> float:
    """The formula, term by term."""
    total = 0.0
    rows = len(images)
    for queries, keys in ((images, texts), (texts, images)):
        for i in range(rows):
            scores = [math.exp(scale * float(queries[i] @ keys[j])) for j in range(rows)]
            right = [j for j in range(rows) if positives[i, j]]
            total += sum(-math.log(scores[j] / sum(scores)) for j in right) / len(right)
    return total / (2 * rows)


def unit(rows: int, seed: int, width: int = 5) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 1, 1], [7] * 6])
def test_infonce_is_its_formula(groups: list[int]) -> None:
    images, texts, group = unit(6, 1), unit(6, 2), torch.tensor(groups)
    positives = group[:, None] == group[None, :]
    found = infonce(images, texts, torch.tensor(7.0), positives)
    assert float(found) == pytest.approx(by_hand(images, texts, 7.0, positives), rel=1e-5)


def test_with_one_positive_per_row_it_is_clips_cross_entropy() -> None:
    images, texts = unit(6, 1), unit(6, 2)
    logits, labels = 9.0 * images @ texts.T, torch.arange(6)
    clip = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert float(infonce(images, texts, torch.tensor(9.0), torch.eye(6).bool())) == pytest.approx(float(clip), rel=1e-5)


def test_equal_features_have_the_loss_of_chance() -> None:
    same = unit(1, 0).expand(8, -1)
    assert float(infonce(same, same, torch.tensor(20.0), torch.eye(8).bool())) == pytest.approx(math.log(8), rel=1e-5)


def test_autocast_does_not_coarsen_the_loss_or_its_gradient() -> None:
    losses, gradients = [], []
    for autocast in (False, True):
        images, texts = unit(32, 1, width=64).requires_grad_(), unit(32, 2, width=64)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = infonce(images, texts, torch.tensor(80.0), torch.eye(32).bool())
        (gradient,) = torch.autograd.grad(loss, images)
        losses.append(loss.detach())
        gradients.append(gradient)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)


def test_cosines_of_stacked_batches_equal_those_of_each_batch() -> None:
    queries, keys = unit(12, 1).view(3, 4, 5), unit(15, 2).view(3, 5, 5)
    together = cosines(queries, keys)
    for batch in range(3):
        torch.testing.assert_close(together[batch], cosines(queries[batch], keys[batch]))


def test_positives_share_id_group_or_caption() -> None:
    ids, groups = torch.tensor([1, 2, 3, 4, 1]), torch.tensor([5, 5, -1, -1, -1])
    tokens = torch.tensor([[9, 1, 0], [9, 2, 0], [9, 1, 0], [9, 3, 1], [9, 3, 2]])
    keys = content_keys(ids, groups, tokens)
    assert positive_pairs(keys, keys).int().tolist() == [
        [1, 1, 1, 0, 1],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


def test_caption_keys_differ_where_tokens_do() -> None:
    tokens = torch.randint(0, 49408, (20_000, 24), generator=torch.Generator().manual_seed(0))
    swapped = tokens[:, torch.randperm(24, generator=torch.Generator().manual_seed(1))]
    both = torch.cat([tokens, swapped])
    zeros = torch.zeros(len(both), dtype=torch.int64)
    assert len(content_keys(zeros, zeros, both)[:, 2].unique()) == len(both)


def test_gathering_on_one_rank_returns_its_own_rows() -> None:
    local = unit(3, 0)
    assert gather_rows(local, [3]) is local


# A linear backbone for images, one for texts, and a temperature; ranks of 3 and 4 rows; DDP's own averaging.
SHARE = """
import json, os, sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import torch.nn.functional as F
from pipeline.contrastive.losses import content_keys, gather_rows, infonce, positive_pairs

class Backbones(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(6, 4), nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.tensor(1.5))
    def forward(self, x, y):
        return F.normalize(self.image(x), dim=-1), F.normalize(self.text(y), dim=-1), self.scale.exp()

def gradients(rank, world):
    rows, generator = 7, torch.Generator().manual_seed(1)
    x, y = (torch.randn(rows, 6, generator=generator) for _ in range(2))
    ids, groups = torch.arange(rows), torch.tensor([0, 1, 0, 2, 3, 1, 4])
    sizes = [rows * (r + 1) // world - rows * r // world for r in range(world)]
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    backbones = Backbones()
    model = DistributedDataParallel(backbones) if world > 1 else backbones
    images, texts, scale = model(x[own], y[own])
    keys = content_keys(ids[own], groups[own], ids[own, None])
    loss = infonce(images, texts, scale, positive_pairs(keys, gather_rows(keys, sizes)),
                   gather_rows(images, sizes), gather_rows(texts, sizes))
    (loss * (sizes[rank] * world / rows)).backward()
    return [p.grad.flatten().tolist() for p in backbones.parameters()]
"""
RANK = """
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=sys.argv[2], rank=int(sys.argv[1]), world_size=2)
from pipeline.contrastive.measures import broadcast_from_rank_0
rank = int(sys.argv[1])
shared = broadcast_from_rank_0([rank + 1 / 3, 1e-300 * (rank + 1)], torch.device("cpu"), 2)
print(json.dumps({"gradients": gradients(rank, 2), "shared": shared}), flush=True)
dist.barrier()
os._exit(0)  # gloo's threads sometimes abort a process that ends while its peer is still running
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The output of each of two gloo processes."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [Forked(SHARE + RANK, str(rank), f"file://{folder}/meeting") for rank in range(2)]
    found = []
    for process in ranks:
        out = process.communicate(timeout=120)
        assert process.returncode == 0, out
        found.append(json.loads(out.splitlines()[-1]))
    return found


def test_two_ranks_with_unequal_batches_have_the_gradient_of_one_process(two_ranks: list[dict[str, Any]]) -> None:
    here: dict[str, Any] = {}
    exec(SHARE, here)
    alone = here["gradients"](0, 1)
    for rank in two_ranks:
        for one, two in zip(alone, rank["gradients"], strict=True):
            assert max(abs(value) for value in one) > 1e-4
            assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


def test_every_rank_receives_the_numbers_of_rank_0_bit_for_bit(two_ranks: list[dict[str, Any]]) -> None:
    assert [rank["shared"] for rank in two_ranks] == [[1 / 3, 1e-300]] * 2
