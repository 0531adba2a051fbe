"""Task messages: thin messages (ids only) that offer steps; a lost or duplicate message does no harm."""
