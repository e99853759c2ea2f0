"""The ready-made validation of a rig: ``pytest --rig-config rig.yaml --validate-rig``."""
