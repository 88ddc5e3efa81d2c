"""The machine's memory, devices and generators."""
