"""The public surface of `lmvp`."""

import lmvp


def test_all_is_sorted_and_there():
    assert lmvp.__all__ == sorted(lmvp.__all__)
    assert all(hasattr(lmvp, name) for name in lmvp.__all__)


def test_the_promised_names():
    assert lmvp.showHistory is lmvp.show_history
    assert {"download", "update", "showHistory"} <= set(lmvp.__all__)


def test_functions_take_what_the_client_takes():
    import inspect

    for name in ("update", "download", "show_history", "diff", "alias", "export_model", "import_model"):
        ours = inspect.signature(getattr(lmvp, name))
        theirs = inspect.signature(getattr(lmvp.Client, name))
        assert list(ours.parameters) == list(theirs.parameters)[1:], name
        assert ours.return_annotation == theirs.return_annotation, name
