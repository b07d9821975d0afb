"""Layers shared by families, and the shapes of compressed ones that config.json cannot express."""
