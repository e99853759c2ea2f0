"""The rig's configuration, the experiment's parameters, and how they are merged."""
