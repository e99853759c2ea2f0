"""Ready-made drivers over real libraries, imported only when a rig names them; registered in ``../driver.py``, DRIVERS."""
