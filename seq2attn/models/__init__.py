"""Networks: encoders, decoders, sequence-to-sequence models and taggers, and how a recipe becomes one."""
