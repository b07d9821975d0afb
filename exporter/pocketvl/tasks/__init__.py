"""One task per kind of head: how a model is trained, asked, measured and compared."""
