"""A taxonomy to which paths are added: the nodes of a base keep their numbers, new paths get the next numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.sharding.format.index import TaxonomyNode

NodePath = tuple[str, ...]


class NodePaths:
    """The taxonomy's nodes by their paths below the root, to which paths can be added; node 0, the root, has path ().

    Args:
        nodes: the nodes of the base, parents first; (): only a root without a name.
    """

    def __init__(self, nodes: Sequence[TaxonomyNode]) -> None:
        self._nodes = list(nodes) or [TaxonomyNode("", -1)]
        self._numbers: dict[NodePath, int] = {(): 0}
        paths: list[NodePath] = [()]
        for node in self._nodes[1:]:
            path = (*paths[node.parent], node.name)
            paths.append(path)
            self._numbers[path] = len(paths) - 1

    def number(self, path: NodePath) -> int:
        """The number of a path's node; a new path is added together with its missing ancestors."""
        for depth in range(1, len(path) + 1):
            prefix = path[:depth]
            if prefix not in self._numbers:
                self._numbers[prefix] = len(self._nodes)
                self._nodes.append(TaxonomyNode(prefix[-1], self._numbers[prefix[:-1]]))
        return self._numbers[path]

    def nodes(self, root: str) -> tuple[TaxonomyNode, ...]:
        """All nodes, parents first; the root gets the name `root` if it has none."""
        first = self._nodes[0]
        return (first if first.name else TaxonomyNode(root, -1), *self._nodes[1:])

    def __iter__(self) -> Iterator[NodePath]:
        """The paths, in the order of their numbers."""
        return iter(self._numbers)
