"""The stage: an ophyd-async device. On a real rig its signals would be EPICS or Tango ones; here they are soft."""

from __future__ import annotations

from ophyd_async.core import StandardReadable, soft_signal_rw


class Stage(StandardReadable):
    """Two axes, in millimetres."""

    def __init__(self, name: str = "") -> None:
        with self.add_children_as_readables():
            self.x_mm = soft_signal_rw(float, 0.0)
            self.z_mm = soft_signal_rw(float, 0.0)
        super().__init__(name=name)

    async def move(self, x_mm: float, z_mm: float) -> None:
        """Move both axes and wait until they are there."""
        await self.x_mm.set(x_mm)
        await self.z_mm.set(z_mm)

    async def check(self) -> str:
        return f"x = {await self.x_mm.get_value():g} mm"

    async def safe_state(self) -> None:
        """Withdraw from the animal."""
        await self.z_mm.set(0.0)
