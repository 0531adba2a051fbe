"""Presence: workers and reconcilers announce themselves in Redis; an entry that is not renewed ends by itself."""
