"""A shared server makes no project or model by a slip of the pen."""

import pytest
from support.workshop import Shop, weights

from lmvp.errors import NotFound
from lmvp_server.services import Services


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    shop.services.close()
    shop.services = Services.open(shop.folder, shared=True)
    yield shop
    shop.services.close()


def test_a_new_name_is_made_only_when_it_is_said_and_the_hint_says_how(shop):
    tree = weights(1, layers=1, rows=20)
    with pytest.raises(NotFound, match="no project 'digits'") as error:
        shop.push(tree, project="digits")
    assert error.value.hint == "`--create` makes a new one"
    shop.push(tree, project="digits", create=True)
    with pytest.raises(NotFound, match="no project 'digtis'") as error:
        shop.push(tree, project="digtis")
    assert error.value.hint == "did you mean 'digits'? `--create` makes a new one"
    with pytest.raises(NotFound, match="no model 'other' in project 'digits'") as error:
        shop.push(tree, "other", "digits")
    assert error.value.hint == "`--create` makes a new one"
