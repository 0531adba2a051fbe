"""Data in Redis that may be lost: views, outputs (an hour), log lines (a day), presence, pub/sub; never the truth."""
