"""Tasks. A task is a class that defines vocabulary, batches, model, loss, metrics and predictor."""
