"""Pictures of attention weights: heat maps and HTML tables."""
