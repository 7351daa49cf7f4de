"""From batches to weights: the training loop, its losses, and the run folder that it writes."""
