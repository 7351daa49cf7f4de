"""The parts of networks that are not attention: embeddings, recurrent layers, CRF, feed-forward layers."""
