"""Whole programs on a recipe or a run: training, checking, scoring, comparing attentions."""
