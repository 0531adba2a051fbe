"""The part of the OpenAPI document about the fleet: health, workers and statistics."""
