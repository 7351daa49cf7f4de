"""From weights to results: search, predictors and what they return."""
