"""The only truth: MongoDB behind narrow ports, every transition one filtered update of one document."""
