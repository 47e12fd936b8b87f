"""Virtualenvs and who builds them. Standard library only: this runs before anything is installed."""
