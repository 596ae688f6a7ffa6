"""From labelled cells to a model bundle, and from a model bundle to its figures."""
