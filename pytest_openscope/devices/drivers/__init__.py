"""Ready-made drivers over real libraries, imported only when a rig names them.

They are registered in :mod:`..driver_registry` (``DRIVERS``, whose comment lists what else a new one needs).
"""
