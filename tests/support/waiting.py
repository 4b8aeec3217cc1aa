"""What a page shows a moment later is waited for, never looked for once."""

from __future__ import annotations

from typing import Any


def counted(locator: Any, count: int) -> None:
    """Wait until a locator finds so many elements."""
    from playwright.sync_api import expect

    expect(locator).to_have_count(count, timeout=20_000)
