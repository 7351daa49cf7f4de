"""Word alignments: from attention weights, from files, and how far two of them agree."""
