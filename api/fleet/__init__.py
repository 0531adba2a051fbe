"""What operators see of the fleet: workers, reconcilers, the parts of health, and the figures of the queues."""
