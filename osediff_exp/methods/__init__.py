"""Methods: what trains a generator. OSEDiff and the systems that it is compared with, one module or folder each (docs/methods.md)."""
