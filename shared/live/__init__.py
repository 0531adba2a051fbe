"""All that Redis may lose: rendered polls, outputs for an hour, log lines of a day, worker marks. Never the truth."""
