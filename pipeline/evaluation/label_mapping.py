"""Maps the labels of a data set to the classes of a classifier by name.

A data set may have its labels in another order, or only some of the classifier's. A label that the classifier does not
have is refused, or its images are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.errors import InputError, listed, near_names


@dataclass(frozen=True, eq=False)
class LabelMapping:
    """The class of each label.

    Attributes:
        names: the names of the classes.
        data_names: the names of the data set's labels.
        classes: [labels + 1] the class of each label of the data set, -1 for none; the last entry, which the label -1
            selects, is -1.
    """

    names: tuple[str, ...]
    data_names: tuple[str, ...]
    classes: NDArray[np.int64]

    @classmethod
    def by_name(cls, names: Sequence[str], data_names: Sequence[str]) -> LabelMapping:
        """The mapping of labels to the classes with the same names."""
        numbers = {name: number for number, name in enumerate(names)}
        classes = [numbers.get(name, -1) for name in data_names]
        return cls(tuple(names), tuple(data_names), np.array([*classes, -1], dtype=np.int64))

    @property
    def is_identity(self) -> bool:
        return self.names == self.data_names

    def classes_of(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The classes of labels; -1 for those without one."""
        return self.classes[labels]

    def unknown(self, labels: NDArray[np.integer]) -> dict[str, int]:
        """The labels that occur in `labels` and are no class: name -> occurrences, the most frequent first."""
        counts = np.bincount(labels[labels >= 0], minlength=len(self.data_names))
        missing = [number for number in np.flatnonzero(counts).tolist() if self.classes[number] < 0]
        return {self.data_names[number]: int(counts[number]) for number in sorted(missing, key=lambda n: -counts[n])}


def refuse_unknown(unknown: Mapping[str, int], names: Sequence[str], *, data: str, model: str) -> None:
    """Refuses labels that are no class of the model.

    Args:
        unknown: name -> number of images, from `LabelMapping.unknown`.
        names: of the classes.
        data, model: their names, for the message.
    Raises:
        InputError: `unknown` is not empty.
    """
    if not unknown:
        return
    name, count = next(iter(unknown.items()))
    near = near_names(name, names)
    more = f"; {len(unknown) - 1:,} more: {listed(list(unknown)[1:])}" if len(unknown) > 1 else ""
    raise InputError(
        f"{data}: the label {name!r} ({counted(count, 'image')}) is not one of the "
        f"{counted(len(names), 'label')} of {model}{near}{more}; rename the label, or leave these images out: "
        "unknown_labels=leave_out, or `tutelage evaluate --leave-out-unknown`"
    )
