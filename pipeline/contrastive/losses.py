"""Symmetric InfoNCE with several positives per row, over one process or over the global batch.

    logits     = scale * image @ text^T                        [A, N]
    image loss = mean over images of - mean over its positives p of log softmax(logits)[p]
    text loss  = the same with images and texts exchanged
    loss       = (image loss + text loss) / 2

With one positive per row this is CLIP's loss (Radford 2021, section 2.3, figure 3). Two samples are each
other's positives if they show the same content or carry the same caption: in a batch about one
object such pairs are common, and counting them as negatives teaches the opposite of the truth.

Over W ranks, each rank computes the rows of its own samples against the gathered columns of all ranks.
`gather_rows` passes the gradient of a row back to its rank, summed over all ranks,
so that after DDP's averaging the gradient equals the gradient of the global batch exactly, provided that
a rank with B of the G samples weights its loss by B * W / G (the training loop does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

_HASH_FACTOR = 6364136223846793005
"""Odd, so that its powers modulo 2**64 never vanish. Source: Knuth's MMIX generator."""


def infonce(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    positives: Tensor,
    all_image_features: Tensor | None = None,
    all_text_features: Tensor | None = None,
) -> Tensor:
    """Symmetric multi-positive InfoNCE, mean over the rows, in nats.

    Args:
        image_features: [B, E], L2-normalised.
        text_features: [B, E], L2-normalised; row i belongs to image i.
        logit_scale: scalar, the inverse temperature, at most 100.
        positives: bool [B, N]; whether row i and column j are a positive pair. Every row has at least one.
        all_image_features: [N, E], the columns; None: the rows are also the columns.
        all_text_features: [N, E], likewise.
    """
    images = image_features if all_image_features is None else all_image_features
    texts = text_features if all_text_features is None else all_text_features
    image_loss = one_way_infonce(image_features, texts, logit_scale, positives)
    text_loss = one_way_infonce(text_features, images, logit_scale, positives)
    return (image_loss + text_loss) / 2


def one_way_infonce(queries: Tensor, keys: Tensor, scale: Tensor, positives: Tensor) -> Tensor:
    """One direction of InfoNCE, mean over the queries, in nats.

    Args:
        queries: [A, E].
        keys: [N, E].
        scale: scalar, the inverse temperature.
        positives: bool [A, N]; each row has at least one.
    """
    log_p = F.log_softmax(scale.float() * cosines(queries, keys), dim=-1)
    positive_log_p = log_p.masked_fill(~positives, 0.0).sum(-1) / positives.sum(-1)
    return -positive_log_p.mean()


def cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """The products of unit vectors, [..., A, N], in float32 also under autocast.

    bfloat16 has 8 bits: its values near 0.5 are 0.002 to 0.004 apart, times a scale of up to 100, so cosines would tie.

    Args:
        queries: [..., A, E].
        keys: [..., N, E].
    """
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().transpose(-2, -1)


def content_keys(ids: Tensor, groups: Tensor, tokens: Tensor) -> Tensor:
    """Three keys per sample, int64 [B, 3]: id, content group (-1: none), caption.

    Two samples are positives if any key is equal. The third is a 64-bit hash of the tokens [B, L], so that ranks
    exchange only three numbers per sample.
    """
    powers = torch.full((tokens.shape[1],), _HASH_FACTOR, dtype=torch.int64, device=tokens.device).cumprod(0)
    return torch.stack([ids, groups, (tokens * powers).sum(1)], dim=1)


def positive_pairs(rows: Tensor, columns: Tensor) -> Tensor:
    """Which samples are each other's positives, bool [A, N]: same id, same group or same caption.

    Args:
        rows: `content_keys`, [A, 3].
        columns: `content_keys`, [N, 3].
    """
    same = rows[:, None, :] == columns[None, :, :]
    return same[..., 0] | (same[..., 1] & (rows[:, None, 1] >= 0)) | same[..., 2]


def gather_rows(local: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of every rank in rank order, [sum(sizes), ...]; gradients flow back to their ranks.

    Args:
        local: this rank's rows, [sizes[rank], ...].
        sizes: rows of each rank; they may differ. With one rank, `local` is returned unchanged.
    """
    if len(sizes) == 1:
        return local
    gathered: Tensor = _GatherRows.apply(local, tuple(sizes))
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather of rows padded to the longest rank; backward sums this rank's slice over all ranks."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = local.new_zeros((max(sizes), *local.shape[1:]))
        padded[: len(local)] = local
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([rows[:size] for rows, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = sum(ctx.sizes[: dist.get_rank()])
        return total[start : start + ctx.sizes[dist.get_rank()]], None
