"""A deployment from its settings to its end: assembled, brought up, read, changed, taken down."""
