"""Format of scikit-learn estimators and pipelines, through skops, which runs no code of unknown classes.

Their arrays are stored as tensors, so versions of an estimator share chunks and have a diff.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency, UnknownFormat, Untrusted
from lmvp.formats import numpy, tensors
from lmvp.formats.base import Bytes, Package, PackedFile, Reader, parse_json
from lmvp.formats.skops_schema import SPARSE, Canonical, assemble
from lmvp.formats.trust import Trust, option

NAMES = ("sklearn",)
ESTIMATOR = "estimator.json"
_LAMBDA = '"__class__":"<lambda>"'
"""The name of a lambda in a skops schema. skops writes lambdas but cannot read them. In a string of the user, JSON
escapes the quotes, so it does not match.
"""

_HARMLESS = Trust.of(
    [
        "numpy.dtype",
        *(f"scipy.sparse._{kind}.{kind}_{form}" for kind in SPARSE for form in ("matrix", "array")),
        *(f"sklearn.calibration.{name}" for name in ("_CalibratedClassifier", "_SigmoidCalibration")),
        *(f"sklearn.feature_selection._univariate_selection.{name}" for name in ("chi2", "f_classif", "f_regression")),
        *(f"sklearn.gaussian_process.kernels.{name}" for name in ("CompoundKernel", "ConstantKernel", "DotProduct")),
        *(f"sklearn.gaussian_process.kernels.{name}" for name in ("ExpSineSquared", "Exponentiation", "Matern")),
        *(f"sklearn.gaussian_process.kernels.{name}" for name in ("Product", "RBF", "RationalQuadratic")),
        *(f"sklearn.gaussian_process.kernels.{name}" for name in ("Sum", "WhiteKernel")),
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        *(f"sklearn.neural_network._stochastic_optimizers.{name}" for name in ("AdamOptimizer", "SGDOptimizer")),
    ]
)
"""Classes and functions that common estimators need and that skops does not trust: pure Python that only computes with
its attributes, and sparse matrices, whose indices are checked here. Trees are missing, because scikit-learn does not
check their indices.
"""


def recognises(obj: Any) -> bool:
    """Return whether the object is an estimator, without importing scikit-learn."""
    return any(cls.__module__ == "sklearn.base" and cls.__name__ == "BaseEstimator" for cls in type(obj).__mro__)


def _skops() -> ModuleType:
    try:
        return import_module("skops.io")
    except ImportError as error:
        raise MissingDependency("estimators are kept by skops, which is missing", hint="pip install skops") from error


def pack(obj: Any) -> Package:
    """Turn an estimator into its arrays and a JSON text about the rest.

    Raises
    ------
    UnknownFormat
        If skops cannot store it, for example because it contains a lambda.
    """
    try:
        dumped = _skops().dumps(obj)
        parts = Canonical(dumped)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UnknownFormat(f"skops cannot keep this {type(obj).__qualname__}: {error}") from error
    text = json.dumps(parts.schema, ensure_ascii=False, separators=(",", ":"))
    if _LAMBDA in text:
        raise UnknownFormat(
            f"this {type(obj).__qualname__} has a lambda in it, which is code and is not kept",
            hint="write it as a function of a module; a pull names it with `--trust`",
        )
    files, meta = tensors.weights({name: numpy.packed(name, array) for name, array in parts.arrays.items()}, "np")
    rest = {ESTIMATOR: text.encode(), **parts.blobs}
    files += [PackedFile(path, [Bytes.of(data)]) for path, data in rest.items()]
    meta["class"] = f"{type(obj).__module__}.{type(obj).__qualname__}"
    return Package("sklearn", files, meta, pull=_pull(dumped))


def _pull(dumped: bytes) -> dict[str, Any]:
    """Return the classes that a pull must trust.

    The result is empty if skops cannot read the object back; the pull then reports the error.
    """
    with suppress(Exception):
        unknown = _unknown(_skops().get_untrusted_types(data=dumped), ())
        # The names appear in the code snippets of the console.
        return {"trust": unknown} if unknown else {}
    return {}


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:
    """Build the estimator.

    Raises
    ------
    Untrusted
        If it needs a class that neither skops nor `trust` trusts.
    InvalidArgument
        If `into` is passed: an estimator is more than its arrays.
    MissingDependency
        If skops, or a class that the estimator needs, is not installed.
    DamagedFile
        If its files are invalid.
    """
    if into is not None:
        raise InvalidArgument("`--into` fills modules and arrays, not estimators", hint="leave `--into` out")
    skops = _skops()
    data = _assemble(reader)
    try:
        unknown = skops.get_untrusted_types(data=data)
        _check_trust(unknown, trust)
        # All unknown types passed `_check_trust` above.
        return skops.loads(data, trusted=unknown)
    except (ImportError, AttributeError) as error:
        raise MissingDependency(
            f"this estimator needs something that is not to be found here: {error}", hint="define or install it first"
        ) from error
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedFile(f"this estimator cannot be read: {error}") from error


def _assemble(reader: Reader) -> bytes:
    try:
        schema = parse_json(reader, ESTIMATOR)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{ESTIMATOR} is damaged: {error}") from error
    if not isinstance(schema, dict):
        raise DamagedFile(f"{ESTIMATOR} is damaged: it is no object")
    return assemble(schema, numpy.load(reader, tensors.stored(reader.manifest)), reader.read)


def _unknown(names: Sequence[str], trust: Sequence[str | type]) -> list[str]:
    trusted = Trust.of(trust)
    return [name for name in names if name not in trusted and name not in _HARMLESS]


def _check_trust(names: Sequence[str], trust: Sequence[str | type]) -> None:
    unknown = _unknown(names, trust)
    if unknown:
        raise Untrusted(
            f"this estimator needs code that nobody vouched for: {', '.join(unknown)}",
            hint=f"if you trust who pushed it, give {option(unknown)}",
        )
