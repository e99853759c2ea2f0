"""The ready-made rig validation suite."""
