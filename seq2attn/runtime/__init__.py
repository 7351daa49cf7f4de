"""The machine: processes, files, devices, and blocks of rows that fit into a CPU's caches."""
