"""Model files: a file -> metadata and tensors. Refuses to know what a model computes."""
