"""The rank of this process in a distributed training.

By default only rank 0 logs; see `all_ranks` of `lmvp.start_run`.
"""

from __future__ import annotations

import os
import sys

# Set by torchrun, Slurm, Open MPI and MPICH. LOCAL_RANK is last, because it is unique only within one machine.
_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK")


def rank() -> int:
    """Return the rank of this process; 0 if it trains alone.

    `torch.distributed` takes precedence, if it is initialized. Otherwise the environment variables of launchers count.

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
