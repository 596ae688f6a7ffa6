"""From labelled cells to a model bundle."""
