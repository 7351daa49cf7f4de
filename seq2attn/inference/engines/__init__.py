"""Engines: other programs that search with a model, for speed."""

from seq2attn.inference.engines.engine import Engine, EngineError, Request

__all__ = ["Engine", "EngineError", "Request"]
