"""The tabletop world: procedural, photograph-like scenes with language that is true or false of them."""
