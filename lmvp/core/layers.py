"""Grouping of tensors into layers and blocks, and the amount of change of a layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

from lmvp.core.schemas import Amount

# The last parts of the names of counters in torch, optimizers, Keras and scikit-learn.
_COUNTERS = frozenset(
    ("num_batches_tracked", "n_averaged", "step", "steps", "global_step", "iteration", "iterations", "n_iter_", "t_",
     "n_samples_seen_", "count", "counter")
)  # fmt: skip
_NO_AMOUNT = Amount(count=0, changed=0, squares=0.0, base_squares=0.0, largest=0.0, after_squares=0.0)


def layer_of(tensor: str) -> str:
    """Return the layer of a tensor: its name up to the last dot or slash.

    Examples
    --------
    >>> layer_of("blocks.0.attn.qkv.weight"), layer_of("lstm/lstm_cell/kernel"), layer_of("scale")
    ('blocks.0.attn.qkv', 'lstm/lstm_cell', 'scale')
    """
    return tensor[: max(tensor.rfind("."), tensor.rfind("/"), 0)] or tensor


def group_of(layer: str) -> str:
    """Return the group of a layer: its path up to the first block index, otherwise its first part.

    Examples
    --------
    >>> [group_of(layer) for layer in ("blocks.0.attn.qkv", "head.norm", "conv1", "0", "lstm/lstm_cell")]
    ['blocks.0', 'head', 'conv1', '0', 'lstm']
    """
    indexed = re.match(r"(?:[^./]*[./])*?\d+(?=[./]|$)", layer)
    return indexed[0] if indexed else re.split("[./]", layer, maxsplit=1)[0] or layer


def shade(relative: float) -> str:
    """Return the code of a relative change in a layer strip, `1` to `5`.

    Parameters
    ----------
    relative : float
        ‖w − w₀‖ / ‖w₀‖. The limits of the codes are 0.1 %, 1 %, 5 % and 20 %.

    Examples
    --------
    >>> [shade(change) for change in (0.0005, 0.001, 0.04, 0.2, math.inf)]
    ['1', '2', '3', '5', '5']
    """
    return str(1 + sum(relative >= limit for limit in (0.001, 0.01, 0.05, 0.2)))


def sum_amounts(tensors: Iterable[tuple[bool, Amount | None]]) -> Amount | None:
    """Return the amount of change of a layer: the sum over its tensors without counters.

    The layer strip, the diff and the page of a version use this sum, so that a layer has the same number everywhere.
    Counters are excluded: they grow by hundreds while weights change by hundredths, so they would dominate the sum.

    Parameters
    ----------
    tensors : iterable of tuple
        For each tensor of the layer, whether it is a counter, and its amount.

    Returns
    -------
    Amount or None
        None if no tensor was measured.

    Examples
    --------
    >>> weight = Amount(count=4, changed=4, squares=0.01, base_squares=1.0, largest=0.1)
    >>> batches = Amount(count=1, changed=1, squares=160_000.0, base_squares=10_000.0, largest=400.0)
    >>> sum_amounts([(False, weight), (True, batches)]).relative, sum_amounts([(True, batches)]).relative
    (0.1, 0.0)
    """
    known = [(counts, amount) for counts, amount in tensors if amount is not None]
    return reduce(add, (amount for counts, amount in known if not counts), _NO_AMOUNT) if known else None


def is_counter(name: str, dtype: str, shape: Sequence[int]) -> bool:
    """Return whether a tensor counts steps, batches or samples, and does not contain weights.

    A single integer is a counter. A single float or an array of integers is one if it has the name of a known counter.
    Any other array of integers is a quantized weight.

    Examples
    --------
    >>> is_counter("bn1.num_batches_tracked", "I64", ()), is_counter("state.0.step", "F32", ())
    (True, True)
    >>> is_counter("fc.weight", "I8", (10, 32)), is_counter("logit_scale", "F32", ()), is_counter("mask", "BOOL", ())
    (False, False, False)
    """
    single, whole = math.prod(shape) == 1, dtype[:1] in ("I", "U")
    return (single and whole) or ((single or whole) and re.split("[./]", name)[-1] in _COUNTERS)
