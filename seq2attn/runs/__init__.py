"""Whole programs for a recipe or a run: training, dry run, evaluation, comparison of attentions."""
