"""Accounts and people: the blueprint ``user_app``, its models, forms, templates and rules."""
