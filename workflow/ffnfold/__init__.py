"""How far GPT-2's feed-forward networks can be merged and shared: compression methods and sound measurement."""

__version__ = "0.1.0"
