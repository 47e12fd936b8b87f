"""The records on disk: what earlier commands have settled."""
