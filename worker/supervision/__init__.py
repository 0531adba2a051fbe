"""What stops a step that does not stop by itself: interrupts, shared slots, the watchdog of the main process."""
