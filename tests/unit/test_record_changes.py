"""Changes of records that the server sent: nothing is a silent no-op."""

import copy
import dataclasses
import inspect
import pickle
from datetime import datetime, timezone

import msgspec
import pytest

import lmvp
from lmvp.core import schemas
from lmvp.core.schemas import runs as run_records
from lmvp.errors import InvalidArgument
from lmvp.views.bisection import Bisection, Trial
from lmvp.views.run_comparison import Comparison
from lmvp.views.runs import Run
from lmvp.views.version import Showing

RECORDS = sorted(
    {
        one
        for module in (schemas, run_records)
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, schemas.Struct) and one is not schemas.Struct
    },
    key=lambda one: one.__name__,
)
"""Every record that an answer of the server becomes; bodies of requests are no `Struct`."""
_AT = datetime(2026, 11, 30, tzinfo=timezone.utc)


def sample(kind):
    """Return a value of a type of msgspec, with an entry in each mapping and list."""
    if isinstance(kind, msgspec.inspect.StructType):
        return filled(kind.cls)
    if isinstance(kind, msgspec.inspect.UnionType):
        return sample(next(one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)))
    if isinstance(kind, msgspec.inspect.DictType):
        return {"key": sample(kind.value_type)}
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return (sample(kind.item_type),)
    if isinstance(kind, msgspec.inspect.AnyType):
        return {"inner": [{"x": 1}]}
    if isinstance(kind, msgspec.inspect.LiteralType):
        return kind.values[0]
    plain = {
        msgspec.inspect.StrType: "text", msgspec.inspect.IntType: 1, msgspec.inspect.FloatType: 0.5,
        msgspec.inspect.BoolType: True, msgspec.inspect.DateTimeType: _AT,
    }  # fmt: skip
    return plain[type(kind)]


def filled(cls):
    return cls(**{field.name: sample(field.type) for field in msgspec.inspect.type_info(cls).fields})


def containers(value):
    """Yield each mapping and list within a value, with tuples and records taken apart."""
    if isinstance(value, (dict, list)):
        yield value
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from containers(getattr(value, name))


DICT_CHANGES = (
    lambda found: found.__setitem__("new", 1),
    lambda found: found.update(new=1),
    lambda found: found.setdefault("new", 1),
    lambda found: found.__ior__({"new": 1}),
    lambda found: found.pop("key", None),
    lambda found: found.__delitem__(next(iter(found))),
    lambda found: found.popitem(),
    lambda found: found.clear(),
)
LIST_CHANGES = (
    lambda found: found.append(1),
    lambda found: found.extend([1]),
    lambda found: found.insert(0, 1),
    lambda found: found.__setitem__(0, 1),
    lambda found: found.__delitem__(0),
    lambda found: found.__iadd__([1]),
    lambda found: found.__imul__(2),
    lambda found: found.pop(),
    lambda found: found.remove(found[0]),
    lambda found: found.clear(),
    lambda found: found.sort(),
    lambda found: found.reverse(),
)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_record_refuses_changes(cls):
    record = filled(cls)
    before = msgspec.json.encode(record)
    for name in (*record.__struct_fields__, "misspelt"):
        with pytest.raises(AttributeError):
            setattr(record, name, "changed")
    if cls is schemas.ErrorBody:  # the client makes an exception of it; no call returns it
        return
    for found in containers(record):
        for change in DICT_CHANGES if isinstance(found, dict) else LIST_CHANGES:
            with pytest.raises(InvalidArgument, match="copy of the server's record"):
                change(found)
    assert msgspec.json.encode(record) == before


def test_records_with_mappings_are_known():
    """The test above finds the mappings: of versions and runs, among others."""
    found = {cls.__name__ for cls in RECORDS if any(True for _ in containers(filled(cls)))}
    assert found >= {"Version", "RunRecord", "Contribution", "Usage", "Layers", "Changes", "Histograms", "Event"}


VALUES = (lmvp.Diff, Bisection, Trial, Comparison, Showing)


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
def test_result_of_a_call_refuses_new_values(cls):
    value = object.__new__(cls)
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)


@pytest.fixture
def version():
    return schemas.Version(
        project="digits", model="mlp", number=3, digest="d" * 64, content="c" * 64, format="numpy", created_at=_AT,
        metrics={"acc": 1, "loss": "NaN"}, params={"lr": 0.1}, tags={"by": "ada"}, environment={"git": {"dirty": True}},
    )  # fmt: skip


@pytest.mark.parametrize("field", ["metrics", "params", "tags"])
def test_change_of_a_version_names_the_call_that_makes_it(version, field):
    with pytest.raises(InvalidArgument) as refused:
        getattr(version, field)["new"] = 1
    assert refused.value.message.startswith(f"the {field} of digits/mlp@v3 cannot be changed here")
    assert f"lmvp.amend('digits/mlp@v3', {field}={{**version.{field}, …}})" in refused.value.hint


def test_mappings_of_a_version_read_like_dicts(version):
    assert version.tags == {"by": "ada"}
    assert isinstance(version.tags, dict)
    assert (version.metrics["acc"], str(version.metrics["loss"])) == (1.0, "nan")
    assert {**version.tags, "gpu": "h100"} == version.tags | {"gpu": "h100"} == {"by": "ada", "gpu": "h100"}
    with pytest.raises(InvalidArgument):
        version.environment["git"]["dirty"] = False
    for own in (version.tags.copy(), copy.copy(version.tags), copy.deepcopy(version.tags), dict(version.tags)):
        own["by"] = "grace"  # a copy belongs to the caller
    again = pickle.loads(pickle.dumps(version))
    assert (again.tags, again.environment) == ({"by": "ada"}, {"git": {"dirty": True}})
    with pytest.raises(InvalidArgument):
        again.tags["by"] = "grace"
    assert msgspec.json.decode(msgspec.json.encode(version.tags)) == {"by": "ada"}


def test_caller_keeps_the_mapping_that_made_a_record(version):
    given = {"acc": 1}
    made = msgspec.structs.replace(version, metrics=given)
    assert (made.metrics, given) == ({"acc": 1.0}, {"acc": 1})
    assert type(given["acc"]) is int


@pytest.fixture
def run():
    return Run(None, run_records.RunRecord(id="a" * 32, project="digits", name="first", status="finished",
                                           created_at=_AT, tags={"by": "ada"}, environment={"git": {"dirty": True}},
                                           metrics={"loss": "Infinity"}))  # fmt: skip


def test_misspelt_attribute_of_a_run_is_refused(run):
    with pytest.raises(AttributeError, match="a run has no 'note'; did you mean 'notes'"):
        run.note = "too many epochs"
    with pytest.raises(AttributeError):
        run.status = "failed"
    assert not hasattr(run, "note")


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.record.tags.update(by="grace"),
        lambda run: run.record.environment["git"].update(dirty=False),
        lambda run: run.environment["git"].update(dirty=False),
        lambda run: run.metrics.update(loss=1.0),
        lambda run: run.record.metrics.clear(),
    ],
)
def test_copies_of_a_run_refuse_changes(run, change):
    with pytest.raises(InvalidArgument, match="cannot be"):
        change(run)
    assert (run.record.tags, run.metrics["loss"]) == ({"by": "ada"}, float("inf"))
