import asyncio

import pytest


class HandClock:
    """A clock that goes when told."""

    def __init__(self, at=1_800_000_000.0):
        self._at = at
        self._since = 5_000.0

    def now(self):
        return self._at

    def monotonic(self):
        return self._since

    async def sleep(self, seconds):
        self.forward(seconds)
        await asyncio.sleep(0)

    def forward(self, seconds):
        self._at += seconds
        self._since += seconds


@pytest.fixture
def clock():
    return HandClock()
