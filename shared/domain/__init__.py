"""The rules of Bucket, pure: standard library only, no clock, no chance, no network."""
