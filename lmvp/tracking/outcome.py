"""How a run ended, told from what left it."""

from __future__ import annotations


def how_it_ended(error: BaseException | None) -> tuple[str, str]:
    """Return status and reason of a run that an exception left, or none."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished", ""
    kind = type(error).__name__
    lines = str(error).strip().splitlines()
    text = f"{kind}: {lines[0]}" if lines else kind
    return "killed" if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else "failed", text
