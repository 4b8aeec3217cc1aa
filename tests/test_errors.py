"""The tree of errors: what is drawn is what is there, and each class says the same in every language."""

import pickle

import pytest

from lmvp import errors
from lmvp.errors import BY_CODE, LmvpError, UserError

CLASSES = sorted(BY_CODE.values(), key=lambda cls: cls.__name__)
BRANCHES = {LmvpError, UserError}


def test_the_tree_draws_every_class():
    for cls in CLASSES:
        assert cls.__name__ in errors.__doc__


def test_codes_are_one_to_one():
    public = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, LmvpError)]
    assert len({cls.code for cls in public}) == len(public)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_class(cls):
    error = cls("it broke", hint="mend it")
    assert str(error) == "it broke\n  hint: mend it"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.hint) == (cls, "it broke", "mend it")
    assert 400 <= cls.http_status < 600
    assert 2 <= cls.exit_code < 128
    if issubclass(cls, UserError):
        assert error._render_traceback_() == [f"{cls.__name__}: it broke", "  hint: mend it"]
    else:
        assert not hasattr(error, "_render_traceback_")
    if cls not in BRANCHES:
        builtins = [base for base in cls.__mro__ if base.__module__ == "builtins"]
        assert builtins[0] not in (Exception, BaseException), f"{cls} is no builtin that a newcomer would catch"
