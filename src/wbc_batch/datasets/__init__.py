"""Labelled cells: folders and prepared data sets, listed, checked, split and read."""
