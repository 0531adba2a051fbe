"""The catalogue over HTTP: agents and baskets, and how a basket definition is parsed."""
