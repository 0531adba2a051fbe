"""The rules of Bucket as pure functions: standard library only, no clock, no random numbers, no network."""
