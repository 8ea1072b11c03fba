"""The tasks: one module each, with ``run(config, run_dir) -> dict`` that wires components together.

The only layer that reads a configuration object. A task's configuration file names its function (``conf/task/NAME.yaml``).
"""
