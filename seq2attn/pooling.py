"""Pooling: attention over a sequence -> one vector, or several."""
