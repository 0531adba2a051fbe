"""Supervision of running steps: interrupts, shared slots, the watchdog of the main process, warm shutdown."""
