"""The command line: help, checks before anything starts, and the job around a task. Nothing here imports torch."""
