"""From weights to results: search, predictors, and the results that they return."""
