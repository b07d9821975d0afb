"""What the models of several families are made of, and the shapes of it that a config.json cannot say."""
