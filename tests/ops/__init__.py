"""Tests of trust: two integrators on one real stack see nothing of each other, and no secret is written anywhere."""
