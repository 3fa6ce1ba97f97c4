"""The conversion of the values of a file to those of a joined column.

text, text lists       -> lists of texts (a text becomes a list of one text)
integers, bool         -> int8 ... int64
floating-point numbers -> float16 or float32
lists of D numbers     -> D numbers of these types per row; all lists have the same length
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.sharding.format.column_kind import ColumnKind

_INTEGERS = {pa.int8(): np.int8, pa.int16(): np.int16, pa.int32(): np.int32, pa.bool_(): np.int8}


def kind_of(values: pa.Array) -> ColumnKind | None:
    """The type of the joined column for these values of a file's column; None if they are all null.

    Raises:
        InputError: values of this type cannot be joined.
    """
    arrow_type, length = _decoded_type(values.type), None
    if pa.types.is_null(arrow_type):
        return None
    if _is_list(arrow_type):
        if _is_string(_decoded_type(arrow_type.value_type)):
            return ColumnKind(np.dtype(object))
        present = values.drop_null()
        if len(present) == 0 or pa.types.is_null(arrow_type.value_type):
            return None
        arrow_type, length = arrow_type.value_type, int(pc.list_value_length(present)[0].as_py())
        if length == 0:
            raise InputError("holds an empty list; omit a sample without a value, or give null")
    if length is None and _is_string(arrow_type):
        return ColumnKind(np.dtype(object))
    if pa.types.is_boolean(arrow_type) or pa.types.is_integer(arrow_type):
        return ColumnKind(np.dtype(_INTEGERS.get(arrow_type, np.int64)), length)
    if pa.types.is_floating(arrow_type):
        return ColumnKind(np.dtype(np.float16 if pa.types.is_float16(arrow_type) else np.float32), length)
    raise InputError(f"holds {values.type}; columns are numbers, lists of equally many numbers, text, or lists of text")


def split_missing(values: pa.Array, kind: ColumnKind, nan_is_missing: bool) -> tuple[NDArray[np.bool_], pa.Array]:
    """([rows] mask of the rows that have a value, these values as they are stored: numbers, or lists of texts).

    Args:
        nan_is_missing: a NaN, alone or in a list, means that the row has no value; otherwise it is an error.
    Raises:
        BadValueError: a value cannot be stored.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return np.zeros(len(values), bool), values
    return _texts(values) if kind.is_text else _numbers(values, kind, nan_is_missing)


class BadValueError(Exception):
    """A value that cannot be stored; the message continues a sentence that begins with the column's name.

    Attributes:
        row: position of the value in the given array.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def _numbers(values: pa.Array, kind: ColumnKind, nan_is_missing: bool) -> tuple[NDArray[np.bool_], pa.Array]:
    present = _bools(values.is_valid())
    if _is_list(values.type) != (kind.length is not None):
        raise BadValueError(0, f"is {values.type}, but the rows before it are {kind}")
    if kind.length is not None:
        lengths = np.asarray(pc.list_value_length(values).fill_null(kind.length))
        _raise_first(
            lengths != kind.length, lambda row: f"has {lengths[row]} numbers; the rows before it have {kind.length}"
        )
    stored = values.filter(pa.array(present))
    flat = stored if kind.length is None else stored.flatten()
    width = kind.length or 1
    rows = np.flatnonzero(present)
    if flat.null_count:
        raise BadValueError(int(rows[np.flatnonzero(_bools(flat.is_null()))[0] // width]), "has a null in its list")
    try:
        numbers = kind.numbers(stored).reshape(len(stored), width)
    except pa.ArrowInvalid as error:
        raise BadValueError(int(rows[0]) if len(rows) else 0, f"does not fit {kind} ({error})") from None
    if kind.is_float and len(stored):
        finite = np.isfinite(numbers).all(axis=1)
        if nan_is_missing:
            has_value = finite | np.isinf(numbers).any(axis=1)  # Infinity does not mean "missing".
            present[rows[~has_value]] = False
            stored = stored.filter(pa.array(has_value))
            numbers, rows, finite = numbers[has_value], rows[has_value], finite[has_value]
        if not finite.all():
            first = np.flatnonzero(~finite)[0]
            what = "NaN" if np.isnan(numbers[first]).any() else f"infinite, or too large for {kind.dtype}"
            raise BadValueError(
                int(rows[first]), f"is {what}" if kind.length is None else f"has a number that is {what}"
            )
    return present, stored


def _texts(values: pa.Array) -> tuple[NDArray[np.bool_], pa.Array]:
    """`split_missing` for texts: empty texts are dropped, and a row without any other text has no value."""
    if not (_is_string(values.type) or (_is_list(values.type) and _is_string(_decoded_type(values.type.value_type)))):
        raise BadValueError(0, f"is {values.type}, but the rows before it are text")
    if _is_list(values.type):
        texts, rows = values.flatten(), np.asarray(pc.list_parent_indices(values))
        if pa.types.is_dictionary(texts.type):
            texts = texts.dictionary_decode()
    else:
        texts, rows = values, np.arange(len(values))
    texts = texts.cast(pa.large_string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raise BadValueError(0, "is not UTF-8, in this row or one near it") from None
    has_content = _bools(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).fill_null(False))
    counts = np.bincount(rows[has_content], minlength=len(values))
    present = counts > 0
    offsets = np.concatenate([[0], np.cumsum(counts[present])]).astype(np.int64)
    return present, pa.LargeListArray.from_arrays(pa.array(offsets), texts.filter(pa.array(has_content)))


def _raise_first(wrong: NDArray[np.bool_], reason: Callable[[int], str]) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadValueError(row, reason(row))


def _bools(values: pa.Array) -> NDArray[np.bool_]:
    return np.array(values.to_numpy(zero_copy_only=False), dtype=bool)


def _decoded_type(arrow_type: pa.DataType) -> pa.DataType:
    return arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type


def _is_string(arrow_type: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_string_view(arrow_type))


def _is_list(arrow_type: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type))
