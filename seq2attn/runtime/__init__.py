"""The machine: processes, files, devices, and work that is done in chunks."""
