"""The data in a deployment."""
