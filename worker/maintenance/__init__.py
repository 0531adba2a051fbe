"""What the reconciler does besides rescues: retention, the feed's relay, grace periods."""
