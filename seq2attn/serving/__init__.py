"""Trained models behind HTTP: a queue of lines, routes, and a page."""
