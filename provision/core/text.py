"""What every message needs: text without secrets, and the indentation of its later lines."""

import re


def redact(text: str) -> str:
    """Return the text with the user name and password of every URL in it hidden."""
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", text)


def indent(text: str) -> str:
    """Return the text with its second and later lines below the first one of an error's part."""
    return text.replace("\n", "\n        ")
