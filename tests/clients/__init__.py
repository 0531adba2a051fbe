"""``make clients``: clients that generators make of docs/openapi.json play a submit and a poll on a real stack.

The generators, and two linters of the document, are installed from lock files into a temporary folder. ``programs/``
has one program for each generated client; it is type-checked together with the client.
"""
