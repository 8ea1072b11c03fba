"""Taggers name what is in a picture; a prompt extractor makes a prompt of the names."""
