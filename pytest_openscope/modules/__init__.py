"""The pipeline steps that come with the package, and the contract of the lab's own ones."""
