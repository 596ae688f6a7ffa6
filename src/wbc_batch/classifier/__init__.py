"""Crops in, predictions out: the model, its preprocessing and its doubts. Knows neither files nor Dask."""

from wbc_batch.classifier.bundle import Bundle, read_bundle
from wbc_batch.classifier.classifier import Classifier
from wbc_batch.classifier.predictions import Predictions, Rejection

__all__ = ["Bundle", "Classifier", "Predictions", "Rejection", "read_bundle"]
