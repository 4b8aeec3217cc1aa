"""Neither way holds the tensors twice: the peak of a fresh process is measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
resource = pytest.importorskip("resource")

MODEL = 200 << 20
SLACK = 48 << 20

PROGRAM = """
import json, resource, sys
sys.path[:0] = [sys.argv[1]]
import numpy as np, torch
from lmvp import formats
from lmvp.formats.base import Package
from lmvp.core import manifest

class Constant:
    '''A version whose weights are all ones, made up while they are read.'''
    def __init__(self, package):
        self.package = package
        tensors = tuple(
            manifest.Tensor(s.name, s.dtype, s.shape, f.path, s.offset, s.size, "")
            for f in package.files
            for s in f.tensors
        )
        self.manifest = manifest.Manifest(package.format, (), tensors, package.meta)
    def read(self, path):
        (file,) = [file for file in self.package.files if file.path == path]
        return b"".join(source.read(0, source.size) for source in file.sources)
    def fill_all(self, targets):
        for path, buffers in targets.items():
            self.fill(path, buffers)
    def fill(self, path, targets):
        for target in targets.values():
            np.frombuffer(target, np.float32)[:] = 1

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

def read_all(package):
    for file in package.files:
        for source in file.sources:
            for offset in range(0, source.size, 4 << 20):
                source.read(offset, min(4 << 20, source.size - offset))

ROWS, WIDE, MANY = 1280, 4096, 10  # 10 x 20 MiB
def make(kind):
    if kind == "numpy":
        return {str(i): np.ones((ROWS, WIDE), np.float32) for i in range(MANY)}
    if kind == "numpy transposed":
        return {str(i): np.ones((ROWS, WIDE), np.float32).T for i in range(MANY)}
    if kind == "numpy big-endian":
        return {str(i): np.ones((ROWS, WIDE), ">f4") for i in range(MANY)}
    if kind == "torch transposed":
        return {str(i): torch.empty(ROWS, WIDE).fill_(1).T for i in range(MANY)}
    if kind == "keras":
        import keras
        inputs = keras.Input((ROWS,))
        layers = [keras.layers.Dense(WIDE, use_bias=False, kernel_initializer="ones") for _ in range(MANY)]
        model = keras.Model(inputs, [layer(inputs) for layer in layers])
        formats.unpack(Constant(formats.pack(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))))
        return model
    net = torch.nn.Sequential(*(torch.nn.Linear(WIDE, ROWS, bias=False, device="meta") for _ in range(MANY)))
    for layer in net:
        layer.weight = torch.nn.Parameter(torch.empty(ROWS, WIDE).fill_(1))
    return net

small = formats.pack(torch.nn.Sequential(torch.nn.Linear(1, 1)))  # imports and first uses are no part of it
formats.unpack(Constant(small)); read_all(formats.pack({"a": np.ones(3)})); json.dumps({})
obj = make(sys.argv[2])
marks = [peak()]
package = formats.pack(obj)
read_all(package)
marks.append(peak())
formats.unpack(Constant(package), into=obj)
marks.append(peak())
if "big-endian" in sys.argv[2]:
    print(json.dumps(marks + [0]))
else:
    back = formats.unpack(Constant(package))
    marks.append(peak())
    print(json.dumps(marks))
"""


@pytest.mark.parametrize(
    "kind", ["numpy", "numpy transposed", "numpy big-endian", "torch transposed", "torch module", "keras"]
)
def test_tensors_are_never_held_twice(kind):
    if kind == "keras":
        pytest.importorskip("keras")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, root, kind]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    start, packed, filled, built = json.loads(done.stdout)
    assert packed - start < SLACK
    assert filled - start < SLACK + (20 << 20)
    assert built - start < MODEL + SLACK + (20 << 20)
