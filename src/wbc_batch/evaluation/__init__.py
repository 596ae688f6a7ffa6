"""How good a model is: figures, pictures, a page, a card, and leaving one data set out."""
