"""Word alignments: from attention weights and from files; alignment error rate."""
