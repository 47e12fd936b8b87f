"""The tasks, and everything a person sees."""
