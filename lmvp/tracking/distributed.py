"""Which of several processes that train one model this is: only the first logs, unless told otherwise."""

from __future__ import annotations

import os
import sys

_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK")


def rank() -> int:
    """Return the number of this process among those that train together; 0 where it is alone.

    What `torch.distributed` says counts most, where it is set up; then what a launcher put into the environment.

    Examples
    --------
    >>> rank()
    0
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if value.isascii() and value.isdigit():
            return int(value)
    return 0
