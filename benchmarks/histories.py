"""Training histories of real networks, as test data for compression.

Nothing is simulated: small networks are trained with AdamW on handwritten digits (scikit-learn) and on the source text
of Python's standard library, and each version is what a user would push. Seeds are fixed, but floating-point sums
differ between machines, and so do the bytes.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

_CONTEXT, _BATCH = 128, 8
_PRETRAINED = 240
"""Steps of training from scratch before a model counts as pre-trained."""


@dataclass(frozen=True)
class History:
    """A name and a generator of versions, oldest first.

    Versions can share memory, so process one before requesting the next.
    """

    name: str
    versions: Callable[[], Iterator[State]]


class Gpt(nn.Module):
    """A small transformer over bytes."""

    def __init__(self, width: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(_CONTEXT, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, text: Tensor) -> Tensor:
        """Return the logits of the next byte at every position."""
        x = self.tokens(text) + self.places(torch.arange(text.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.qkv(self.before(x)).view(batch, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class Cnn(nn.Module):
    """A convolutional network with batch normalisation, whose running statistics change with every batch."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the ten digits."""
        return self.body(x.view(-1, 1, 8, 8))


def mlp() -> nn.Module:
    """Return a multilayer perceptron for the digits."""
    return nn.Sequential(nn.Linear(64, 768), nn.ReLU(), nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 10))


class Text:
    """Batches of source text. `part` separates the text for fine-tuning from the text for pre-training."""

    def __init__(self, part: str, seed: int = 0) -> None:
        folder = Path(sysconfig.get_path("stdlib"))
        pattern = "*.py" if part == "library" else f"{part}/*.py"
        joined = b"\n".join(path.read_bytes() for path in sorted(folder.glob(pattern)))
        self._bytes = torch.frombuffer(bytearray(joined), dtype=torch.uint8)
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the loss of a model on the next batch."""
        starts = torch.randint(len(self._bytes) - _CONTEXT - 1, (_BATCH,), generator=self._random)
        rows = torch.stack([self._bytes[start : start + _CONTEXT + 1] for start in starts.tolist()]).long()
        return nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1).float(), rows[:, 1:].flatten())


class Digits:
    """Batches of handwritten digits."""

    def __init__(self, seed: int = 0) -> None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        self._images, self._labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the loss of a model on the next batch."""
        rows = torch.randint(len(self._labels), (64,), generator=self._random)
        return nn.functional.cross_entropy(model(self._images[rows]), self._labels[rows])


Loss = Callable[[nn.Module], Tensor]


def train(model: nn.Module, loss: Loss, rate: float, versions: int, steps: int) -> Iterator[State]:
    """Yield the state before training, then after each `steps` steps; the learning rate decreases linearly to 0."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    schedule = _falling(optimiser, (versions - 1) * steps)
    yield model.state_dict()
    for _ in range(versions - 1):
        for _ in range(steps):
            optimiser.zero_grad()
            loss(model).backward()
            optimiser.step()
            schedule.step()
        yield model.state_dict()


def _falling(optimiser: torch.optim.Optimizer, steps: int) -> Any:
    return torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)


def train_pure(model: nn.Module, loss: Loss, rate: float, versions: int, steps: int) -> Iterator[State]:
    """Train as `train` does, but with weights, gradients and optimiser state in bf16 and without an fp32 copy.

    The passes run in fp32, because most CPUs are fast only with fp32.
    """
    kept = {name: nn.Parameter(value.detach().bfloat16()) for name, value in model.named_parameters()}
    optimiser = torch.optim.AdamW(kept.values(), lr=rate)
    schedule = _falling(optimiser, (versions - 1) * steps)
    for version in range(versions):
        for _ in range(steps if version else 0):
            model.load_state_dict(kept)
            model.zero_grad()
            loss(model).backward()
            for name, value in model.named_parameters():
                assert value.grad is not None
                kept[name].grad = value.grad.bfloat16()
            optimiser.step()
            schedule.step()
        yield {name: value.detach() for name, value in kept.items()}


def stored_as(states: Iterator[State], dtype: torch.dtype) -> Iterator[State]:
    """Convert states that were trained in fp32 to the stored dtype, as in mixed-precision training."""
    for state in states:
        yield {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}


@cache
def _pretrained() -> State:
    torch.manual_seed(1)
    model = Gpt()
    for _ in train(model, Text("library"), 1e-3, 2, _PRETRAINED):
        pass
    return model.state_dict()


def pretrained() -> Gpt:
    """Return a pre-trained GPT with separate memory."""
    model = Gpt()
    model.load_state_dict(_pretrained())
    return model


def _scratch(make: Callable[[], nn.Module], loss: Loss, rate: float, versions: int, steps: int) -> Iterator[State]:
    torch.manual_seed(2)
    return train(make(), loss, rate, versions, steps)


def _frozen(dtype: torch.dtype) -> Iterator[State]:
    model = pretrained()
    for name, value in model.named_parameters():
        value.requires_grad = name.startswith(("blocks.3.", "norm.", "head."))
    return stored_as(train(model, Text("json"), 1e-5, 6, 10), dtype)


class _Lora(nn.Module):
    """A linear layer with a LoRA adapter of rank 8; `merged` returns the sum that is saved."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.randn(8, layer.in_features) / 8)
        self.b = nn.Parameter(torch.zeros(layer.out_features, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.a.T @ self.b.T

    def merged(self) -> Tensor:
        return self.layer.weight + self.b @ self.a


def _lora(dtype: torch.dtype) -> Iterator[State]:
    torch.manual_seed(3)
    model = pretrained().requires_grad_(requires_grad=False)
    adapted = {}
    for at, block in enumerate(model.blocks):
        block.qkv = adapted[f"blocks.{at}.qkv.weight"] = _Lora(block.qkv)
        block.out = adapted[f"blocks.{at}.out.weight"] = _Lora(block.out)
    for _ in train(model, Text("json"), 1e-4, 6, 10):
        merged = {name: layer.merged().detach() for name, layer in adapted.items()}
        yield {name: merged.get(name, value).to(dtype) for name, value in _pretrained().items()}


def _finetuned() -> Iterator[State]:
    return train(pretrained(), Text("json"), 1e-5, 6, 10)


ALL = (
    History("mlp fp32", lambda: _scratch(mlp, Digits(), 1e-3, 8, 28)),
    History("cnn fp32", lambda: _scratch(Cnn, Digits(), 1e-3, 6, 28)),
    History("cnn bf16", lambda: stored_as(_scratch(Cnn, Digits(), 1e-3, 6, 28), torch.bfloat16)),
    History("gpt fp32", lambda: _scratch(Gpt, Text("library"), 3e-4, 6, 15)),
    History("gpt bf16", lambda: stored_as(_scratch(Gpt, Text("library"), 3e-4, 6, 15), torch.bfloat16)),
    History("gpt fine-tune fp32", _finetuned),
    History("gpt fine-tune bf16", lambda: stored_as(_finetuned(), torch.bfloat16)),
    History("gpt fine-tune fp16", lambda: stored_as(_finetuned(), torch.float16)),
    History("gpt fine-tune pure bf16", lambda: train_pure(pretrained(), Text("json"), 1e-5, 6, 10)),
    History("gpt frozen backbone fp32", lambda: _frozen(torch.float32)),
    History("gpt frozen backbone bf16", lambda: _frozen(torch.bfloat16)),
    History("gpt LoRA merged fp32", lambda: _lora(torch.float32)),
    History("gpt LoRA merged bf16", lambda: _lora(torch.bfloat16)),
)
"""Every history of the benchmark."""
