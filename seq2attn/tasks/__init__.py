"""Tasks: classes that define vocabulary, batches, model, loss, predictor and evaluation."""
