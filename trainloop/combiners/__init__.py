"""Combiners: one direction out of the gradients of several losses that may pull against each other.

    g, state = combiner.combine(losses, gradients, state)         losses [k], gradients G [k, n], g [n]

| combiner | g |
|---|---|
| `Sum` | the sum of the rows of G: what training without a combiner does |
| `UPGrad` | mean of the rows, each projected onto the directions along which no loss rises |
| `MGDA` | the shortest vector in the convex hull of the rows |
| `PCGrad` | sum of the rows, each without what pulls against the others, taken in random order |
| `CAGrad` | near the mean of the rows, where the loss that falls least falls most |
| `ConFIG` | one direction with the same cosine to all rows, as long as the sum of their projections onto it |

`trainloop.Combine(inner, combiner)` gives g to another optimizer. `trainloop.testing.check_combiner` checks one of
your own.
"""

from trainloop.combiners.base import Combiner, GramianCombiner
from trainloop.combiners.cagrad import CAGrad
from trainloop.combiners.conflict_free import ConFIG
from trainloop.combiners.cosines import cosines
from trainloop.combiners.mgda import MGDA
from trainloop.combiners.pcgrad import PCGrad
from trainloop.combiners.sum import Sum
from trainloop.combiners.upgrad import UPGrad

# Those that come with trainloop.
NAMES = ("Sum", "UPGrad", "MGDA", "PCGrad", "CAGrad", "ConFIG")

__all__ = ["MGDA", "CAGrad", "Combiner", "ConFIG", "GramianCombiner", "PCGrad", "Sum", "UPGrad", "cosines"]
