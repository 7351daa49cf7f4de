"""Whole programs for a recipe or a run: training, checking, scoring, comparing attentions."""
