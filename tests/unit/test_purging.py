"""What was removed longer ago than it is kept is deleted for good, by itself."""

from datetime import timedelta

import numpy as np
from support.workshop import ADA, Shop

from lmvp_server.services import Services


def test_when_its_time_is_over_it_goes_by_itself(tmp_path):
    shop = Shop(tmp_path / "data")
    for number in range(3):
        shop.push({"w": np.full(50_000, number, "f8")})
    shop.push({"w": np.arange(9.0)}, model="other")
    shop.services.close()

    def opened(days):
        shop.services = Services.open(shop.folder, keep_removed=timedelta(days=days))
        return shop.services

    services = opened(7)
    services.trash.remove_version(ADA, "p", "m", "1")
    services.trash.remove_model(ADA, "p", "other")
    services.tidy_up(lambda: True)
    assert services.trash.items(ADA)["total"] == 2
    services.close()
    services = opened(1e-9)
    before = services.usage.of_project(ADA, "p")["disk"]["chunks"]
    services.tidy_up(lambda: True)
    assert services.trash.items(ADA)["total"] == 0
    assert services.usage.of_project(ADA, "p")["disk"]["chunks"] < before
    purged = [one["what"] for one in services.records.events(services.catalog.find_project(ADA, "p").id)
              if one["action"].endswith(".purge")]  # fmt: skip
    assert purged == ["p/other", "p/m@v1"]
    services.trash.remove_project(ADA, "p")
    services.tidy_up(lambda: True)
    assert services.records.spaces() == ["server"]
    services.close()
