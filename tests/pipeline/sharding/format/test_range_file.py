"""A file over ranges reads and seeks as a file on disk does."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sharding.format.range_file import RangeFile

STEPS = st.lists(
    st.one_of(st.tuples(st.just("read"), st.integers(0, 40)), st.tuples(st.just("seek"), st.integers(0, 120))),
    max_size=12,
)


@given(st.binary(max_size=100), STEPS, st.integers(1, 32))
def test_it_reads_and_seeks_like_a_file(data: bytes, steps: list[tuple[str, int]], buffer: int) -> None:
    ours = io.BufferedReader(RangeFile(len(data), lambda start, length: data[start : start + length]), buffer)
    theirs = io.BytesIO(data)
    for what, number in steps:
        assert getattr(ours, what)(number) == getattr(theirs, what)(number)
        assert ours.tell() == theirs.tell()
    assert ours.seek(-len(data), io.SEEK_END) == 0
    assert ours.read() == data
