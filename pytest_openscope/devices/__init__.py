"""The rig's devices: drivers, mocks and safe states."""
