"""Random names for runs that the user does not name, for example `quiet-wren-44`."""

from __future__ import annotations

import secrets
from typing import Final

_HOW: Final = """
    amber bold brave bright brisk calm clear cool crisp dapper deep eager early fair fleet fond free fresh gentle glad
    grand green happy hardy jolly keen kind lively lucid lucky mellow merry mild neat nimble noble patient plain proud
    quick quiet rapid ready rosy rustic serene sharp silent silver sleek smart snowy solid spry steady still sunny
    swift tidy tranquil vivid warm wide wise witty young
"""
_WHO: Final = """
    adder badger bee beetle bison bittern crane crow curlew deer dove duck eagle egret elk falcon finch fox frog gecko
    goose grouse gull hare hawk heron ibis jackdaw jay kestrel kite lark linnet lynx magpie marten mole moth newt
    nightjar osprey otter owl pike plover quail raven robin rook salmon seal shrew skylark snipe sparrow stoat stork
    swallow swan swift tern thrush toad trout vole wagtail weasel wigeon wren
"""


def made_up() -> str:
    """Return a random name for a run.

    Examples
    --------
    >>> len(made_up().split("-"))
    3
    """
    return f"{secrets.choice(_HOW.split())}-{secrets.choice(_WHO.split())}-{1 + secrets.randbelow(99)}"
