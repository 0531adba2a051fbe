"""Actions on existing runs that the API does for one run and a worker for many: cancel, erase, rerun."""
