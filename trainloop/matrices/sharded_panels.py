"""The panels of a dense matrix M, see `dense`, dealt to several shards, see `shards`.

Every panel is whole in one shard, and a product is one sum over the shards of n numbers per column, to which a panel
contributes its rows (and where M is symmetric, or for M', a part of other rows). There are 24 panels for 12 shards or
fewer, so that the panels of a matrix do not depend on how many shards have them; and they are dealt such that all
shards have about as many numbers.
"""

import dataclasses

import tensorflow as tf

from trainloop.distributed import shards
from trainloop.distributed.shards import Shards, WholeArray
from trainloop.matrices.dense import Panels, unit_panels

# The least number of panels: 2, 3, 4, 6, 8 and 12 shards get as many each, also of a symmetric M where a long one comes
# with a short one.
_PANELS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedPanels(Panels):
    """M in shards; what is not in this process stays lazy."""

    shards: Shards

    @classmethod
    def identity(cls, n, dtype, symmetric, shards):
        return cls(unit_panels(n, dtype, symmetric, _count(n, shards)), n, symmetric, shards)

    @property
    def storage(self):
        return "sharded"

    @property
    def arrays(self):
        return tuple(part for shard in self.shards.mine for part, *_ in self._placed_in(shard))

    @property
    def elsewhere(self):
        return tuple(part for part, owner in zip(self.parts, self._owners(), strict=True) if not self._is_mine(owner))

    def in_words(self):
        return f"{super().in_words()}, {self.shards.in_words}"

    def as_variables(self, make_variable):
        self.shards.check_no_scope()
        parts = list(self.parts)
        for i, (name, owner) in enumerate(zip(self.widths(), self._owners(), strict=True)):
            if self._is_mine(owner):
                with self.shards.on(owner):
                    parts[i] = make_variable(name, parts[i], False)
        return dataclasses.replace(self, parts=tuple(parts))

    def wholes(self):
        if self.shards.strategy is None:
            return {}
        owners = [self._is_mine(owner) for owner in self._owners()]
        return {
            name: WholeArray(part.shape, self.dtype, [(..., part)] if mine else [], self.shards)
            for name, part, mine in zip(self.widths(), self.parts, owners, strict=True)
        }

    def product(self, columns):
        return self._summed(self._product, columns)

    def transposed_product(self, columns):
        return self._summed(self._transposed_product, columns)

    def _summed(self, multiply, columns):
        """The sum over the shards of products with M, where rows of M that a shard does not have are zero."""

        def partial(shard):
            placed = self._placed_in(shard)
            return multiply(placed, columns) if placed else tf.zeros_like(columns)

        return self.shards.sum(self.shards.map(partial))

    def _blocks(self, placed, columns):
        """Those of the panels, with zeros between them for all other rows."""
        blocks, end = [], 0
        for block, (_, first, (rows, _)) in zip(super()._blocks(placed, columns), placed, strict=True):
            blocks += [tf.zeros_like(columns[end:first])] if first > end else []
            blocks.append(block)
            end = first + rows
        return [*blocks, tf.zeros_like(columns[end:])] if end < self.n else blocks

    def apply(self, scale, left, right, shift=None):
        self.shards.map(lambda shard: self._apply_to(self._placed_in(shard), scale, left, right, shift))

    def _placed_in(self, shard):
        """As `_placed`, of the panels of a shard."""
        return [placed for placed, owner in zip(self._placed(), self._owners(), strict=True) if owner == shard]

    def _owners(self):
        """The shard of every panel."""
        return shards.deal([rows * width for _, (rows, width) in self._places()], self.shards.count)

    def _is_mine(self, owner):
        return owner in self.shards.mine


def _count(n, where):
    """How many panels there are."""
    count = _PANELS
    while count < 2 * where.count:
        count *= 2
    return min(count, n)
