"""What everything stands on: errors, files, locks, signals, steps. Imports nothing of ours."""
