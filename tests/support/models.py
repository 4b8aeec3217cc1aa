"""Models of some MB that look trained, and what a step of training makes of them."""

import numpy as np

ROWS = 1024


def weights(seed=0, layers=4, rows=ROWS):
    rng = np.random.default_rng(seed)
    return {f"layers.{i}.weight": (rng.standard_normal((rows, 256)) * 0.02).astype(np.float32) for i in range(layers)}


def step(tree, seed=1, size=1e-5, names=None):
    rng = np.random.default_rng(seed)
    return {
        name: (w + rng.standard_normal(w.shape) * size).astype(w.dtype) if names is None or name in names else w
        for name, w in tree.items()
    }


def bfloat16(tree):
    import pytest

    torch = pytest.importorskip("torch")
    return {name: torch.from_numpy(w).bfloat16() for name, w in tree.items()}


def size(tree):
    return sum(w.nbytes for w in tree.values())


def same(one, other):
    return list(one) == list(other) and all((one[name] == other[name]).all() for name in one)
