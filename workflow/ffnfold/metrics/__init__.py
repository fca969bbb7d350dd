"""The metrics: each a module that takes models and plain values and returns figures with intervals and item scores."""
