"""This computer: whose files these are, which process it is."""
