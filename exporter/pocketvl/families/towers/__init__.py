"""Towers of open_clip models: how a configuration describes one, its module, and the names of its tensors."""
