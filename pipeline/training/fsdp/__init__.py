"""Fully sharded data parallel (FSDP2): each rank holds a part of the weights, gradients and optimiser state.

    units.py            the blocks whose weights are gathered at once
    fully_sharded.py    the Parallelism of the loop: shards the model, and lets the ranks act as one
    tensor_parts.py     a rank's part of a tensor, between device, host and checkpoint
    equal_passes.py     evaluations, in which ranks have unequal numbers of batches
    checkpoint_files.py the files of a checkpoint that every rank writes
    checkpoint_io.py    torch.distributed.checkpoint on the store

With W ranks, a rank holds 1/W of what a replica holds: weights, average, gradients and optimiser state. Each block's
weights are gathered for its forward and its backward pass, and freed after it.
"""
