"""What prompts cost, paid once: tags by picture and tagger, text features by text and text encoder (docs/adr/0017)."""
