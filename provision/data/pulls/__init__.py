"""Data of another server, sampled and masked: production's shape without its people."""
