"""How far a model can be compressed: a recipe by the guidelines, a search on held-out data, and what comes of it."""
