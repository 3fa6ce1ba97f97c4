"""A taxonomy to which paths are added: the nodes of a base keep their numbers, new paths get the next numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.sharding.format.index import TaxonomyNode

Path = tuple[str, ...]


class Paths:
    """The path of each node below the root, by its number; 0 is the root, and also means "no path".

    Args:
        nodes: parents first.
    """

    def __init__(self, nodes: Sequence[TaxonomyNode]) -> None:
        self._nodes = list(nodes)
        self._numbers: dict[Path, int] = {(): 0}
        paths: list[Path] = [()]
        for node in self._nodes[1:]:
            path = (*paths[node.parent], node.name)
            paths.append(path)
            self._numbers[path] = len(paths) - 1

    @classmethod
    def of(cls, nodes: Sequence[TaxonomyNode]) -> Paths:
        return cls(nodes or [TaxonomyNode("", -1)])

    def number(self, path: Path) -> int:
        """The number of a path; a new path is added together with its missing ancestors."""
        for depth in range(1, len(path) + 1):
            prefix = path[:depth]
            if prefix not in self._numbers:
                self._numbers[prefix] = len(self._nodes)
                self._nodes.append(TaxonomyNode(prefix[-1], self._numbers[prefix[:-1]]))
        return self._numbers[path]

    def nodes(self, root: str) -> tuple[TaxonomyNode, ...]:
        """All nodes; the root is called `root` if it has no name yet."""
        first = self._nodes[0]
        return (first if first.name else TaxonomyNode(root, -1), *self._nodes[1:])

    def __iter__(self) -> Iterator[Path]:
        return iter(self._numbers)
