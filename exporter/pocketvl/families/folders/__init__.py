"""Formats of checkpoint folders: what stands in which file, read and checked."""
