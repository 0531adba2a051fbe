"""Access: who calls, in which role, and the keys that say so."""
