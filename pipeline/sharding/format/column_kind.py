"""ColumnKind: the type of a joined column: text, a number, or D numbers for each sample.

Configs read it; values.py, which converts to it, imports `pyarrow.compute`, which takes 0.13 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# The integer that means "no value", like the label -1 of a sample without a label.
NO_NUMBER = -1


@dataclass(frozen=True, slots=True)
class ColumnKind:
    """The type of a joined column.

    Attributes:
        dtype: type of its numbers; object for text.
        length: numbers per row; None for one number, and for text.
    """

    dtype: np.dtype[Any]
    length: int | None = None

    @property
    def is_text(self) -> bool:
        return self.dtype == np.dtype(object)

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f"

    @property
    def missing(self) -> float | int:
        """The number that is stored for a sample without a value."""
        return float("nan") if self.is_float else NO_NUMBER

    def __str__(self) -> str:
        if self.is_text:
            return "text"
        return str(self.dtype) if self.length is None else f"{self.dtype} x {self.length}"

    def numbers(self, values: pa.Array) -> NDArray[Any]:
        """The numbers of an array without nulls, [n] or [n, length]."""
        flat = values if self.length is None else values.flatten()
        if pa.types.is_boolean(flat.type):
            flat = flat.cast(pa.int8())
        whole = flat.cast(pa.from_numpy_dtype(self.dtype), safe=not self.is_float)
        numbers: NDArray[Any] = whole.to_numpy(zero_copy_only=True)
        return numbers if self.length is None else numbers.reshape(-1, self.length)
