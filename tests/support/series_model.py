"""A series as a dict, slow and plain, and writers who send to it and to a real one."""

import math
import struct

from lmvp.core.frame_parsing import parse
from lmvp.core.run_frames import (
    AUTO,
    BATCH,
    BATCH_HEAD,
    EVEN_STEPS,
    ONE_TIME,
    STRIDE,
    attempt_frame,
    framed,
    key_frame,
    points_frame,
)


def send(store, data, *, writer="a" * 32, start=None, project="p", run="r"):
    """Append frames to a series, at the end of the writer's journal or at a place."""
    start = store.applied(project, run, writer) if start is None else start
    return store.append(project, run, writer, start, data, parse(data))


def batch(key, first, values, time=1.5, stride=1):
    """Return the frame of a batch of evenly spaced steps."""
    head = BATCH_HEAD.pack(BATCH, EVEN_STEPS | ONE_TIME, key, len(values)) + STRIDE.pack(first, stride)
    return framed(head + struct.pack(f"<d{len(values)}d", time, *values))


def steps_and_values(columns):
    """Return the points of several columns as pairs."""
    return [pair for part in columns for pair in zip(part.steps.tolist(), part.values.tolist(), strict=True)]


class Writer:
    """Builds the journal of one writer; `model` is told what each frame means."""

    def __init__(self, name, model):
        self.name, self.model = name, model
        self.keys, self.epoch, self.journal = {}, 0, b""

    def log(self, key, step, value, time):
        data = b""
        if key not in self.keys:
            self.keys[key] = len(self.keys)
            data = key_frame(self.keys[key], key)
        self.model.point(key, step, value, time, self.epoch)
        self.journal += data + points_frame(time, [(self.keys[key], step, value)])

    def log_batch(self, key, first, values, time):
        data = b""
        if key not in self.keys:
            self.keys[key] = len(self.keys)
            data = key_frame(self.keys[key], key)
        for i, value in enumerate(values):
            self.model.point(key, first + i, value, time, self.epoch)
        self.journal += data + batch(self.keys[key], first, values, time)

    def begin(self, epoch, cut):
        self.epoch = epoch
        if cut is not None:
            self.model.cut(epoch, cut)
        self.journal += attempt_frame(epoch, AUTO if cut is None else cut)


class Model:
    """What counts, by the words of docs/runs.md."""

    def __init__(self):
        self.points, self.cuts = {}, []

    def point(self, key, step, value, time, epoch):
        of = self.points.setdefault(key, {})
        if step == AUTO:
            step = max(of, default=-1) + 1
        if not self.dropped(key, step, epoch) and (step not in of or epoch >= of[step][0]):
            of[step] = (epoch, value, time)

    def dropped(self, key, step, epoch):
        return not key.startswith("system/") and any(epoch < e and step > cut for e, cut in self.cuts)

    def cut(self, epoch, step):
        self.cuts.append((epoch, step))
        for key, of in self.points.items():
            for at in [at for at, (e, _, _) in of.items() if self.dropped(key, at, e)]:
                del of[at]

    def rows(self, key):
        return [(step, value, time) for step, (_, value, time) in sorted(self.points.get(key, {}).items())]


def same(found, expected):
    """Whether rows are equal, NaN being equal to NaN."""
    return len(found) == len(expected) and all(
        a == b or (math.isnan(a) and math.isnan(b))
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )
