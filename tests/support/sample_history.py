"""A model that never was: 13 versions of a bird-song tagger, with branches, aliases and layer strips."""

# ruff: noqa: E501
from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone

from lmvp.core.schemas import (
    Layer,
    Layers,
    Parent,
    Version,
)
from lmvp.views.history import History

NOW = datetime(2026, 11, 20, 16, 41, tzinfo=timezone.utc)

# number, message, author, hours ago, val/f1, bytes sent, parents, aliases, how much each part changed
ROWS = [
    (13, "Calibrate the head on field recordings", "ada", 3, 0.871, 135_000, (12,), (), {"head": "4"}),
    (12, "Average of v10 and v11", "ada", 23, 0.874, 19_800_000, (10, 11), ("production", "best"), {"": "2"}),
    (11, "Unfreeze the last two blocks", "grace", 53, 0.839, 5_900_000, (9,), ("field-test",), {"blocks.6": "3", "blocks.7": "4", "head": "5"}),
    (10, "Cosine schedule, 60 epochs", "ada", 79, 0.848, 23_400_000, (8,), (), {"": "3"}),
    (9, "Only the head, augmented recordings", "grace", 95, 0.781, 135_000, (7,), (), {"head": "5"}),
    (8, "Retrain everything with mixup", "ada", 128, 0.823, 24_600_000, (7,), (), {"": "4", "blocks.3": "5"}),
    (7, "Head for 132 species", "ada", 145, 0.744, 136_000, (5,), (), {"head.linear": "+"}),
    (6, "Adapters in every block, base frozen", "grace", 198, 0.806, 267_000, (5,), (), {"adapter": "+", "head": "3"}),
    (5, "Lower learning rate for 10 epochs", "ada", 213, 0.802, 14_200_000, (4,), ("paper",), {"": "2", "stem": "1"}),
    (4, "Continue, 20 more epochs", "ada", 244, 0.791, 22_900_000, (3,), (), {"": "3", "stem": "4"}),
    (3, "Two more blocks on top", "grace", 266, 0.768, 24_800_000, (2,), (), {"": "3", "blocks.6": "+", "blocks.7": "+"}),
    (2, "Train to convergence", "ada", 283, 0.713, 19_100_000, (1,), (), {"": "5"}),
    (1, "First try", "ada", 312, 0.412, 19_300_000, (), (), {"": "+"}),
]  # fmt: skip

BLOCK = {"norm1": 512, "attn.qkv": 197_376, "attn.proj": 65_792, "norm2": 512, "mlp.fc1": 263_168, "mlp.fc2": 262_400, "adapter": 8_192}  # fmt: skip
AXIS = (
    *(Layer(path=f"stem.{name}", group="stem", size=n) for name, n in (("conv1", 3_200), ("conv2", 147_712), ("position", 65_536))),
    *(Layer(path=f"blocks.{i}.{name}", group=f"blocks.{i}", size=n) for i in range(8) for name, n in BLOCK.items()),
    *(Layer(path=f"head.{name}", group="head", size=n) for name, n in (("norm", 512), ("linear", 33_924))),
)  # fmt: skip


def digest(number: int) -> str:
    return hashlib.sha256(f"v{number}".encode()).hexdigest()


def version(number: int, message: str = "", **fields) -> Version:
    parents = tuple(Parent(number=n, digest=digest(n)) for n in fields.pop("parents", ()))
    given = {"project": "birdsong", "model": "tagger", "created_at": NOW, "format": "torch.module"}
    return Version(
        number=number,
        message=message,
        digest=digest(number),
        content=digest(-number),
        parents=parents,
        **{**given, **fields},
    )


def versions() -> list[Version]:
    return [
        version(
            number, message, author=author, created_at=NOW - timedelta(hours=hours), metrics={"val/f1": f1, "val/loss": 1 - f1},
            size=26_300_000, sent=sent, parents=parents, aliases=aliases, params={"lr": 0.001},
        )
        for number, message, author, hours, f1, sent, parents, aliases, _ in ROWS
    ]  # fmt: skip


def code_of(layer: Layer, number: int, changes: dict[str, str]) -> str:
    deep = layer.group in ("blocks.6", "blocks.7") and number < 3
    if deep or (layer.path.endswith("adapter") and number != 6):
        return "."
    named = [
        code
        for prefix, code in changes.items()
        if prefix and (layer.path.startswith(prefix) or layer.path.endswith(prefix))
    ]
    return named[0] if named else changes.get("", "0")


def layers(amounts: bool = True) -> Layers:
    strips = {str(row[0]): "".join(code_of(layer, row[0], row[-1]) for layer in AXIS) for row in ROWS}
    if not amounts:
        strips = {n: codes.translate(str.maketrans("12345", "xxxxx")) for n, codes in strips.items()}
    return Layers(axis=AXIS, strips=strips)


def history(amounts: bool = True) -> History:
    return History(versions(), title="birdsong/tagger", layers=lambda _: layers(amounts))


def long_history(count: int, **fields) -> History:
    rows = [
        version(n, f"epoch {n}", author="ada", created_at=NOW - timedelta(hours=count - n), metrics={"val/f1": 1 - 1 / (n + 1)},
                parents=(n - 1,) if n > 1 else (), sent=1000 * n, **fields)
        for n in range(count, 0, -1)
    ]  # fmt: skip
    return History(rows, title="birdsong/tagger")
