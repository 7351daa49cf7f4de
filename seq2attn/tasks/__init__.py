"""Tasks: each names its recipe, data, model, loss, metrics and predictor in one place."""
