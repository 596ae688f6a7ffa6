"""Models from elsewhere, models for elsewhere, and whether a model is whole."""
