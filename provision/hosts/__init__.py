"""Other hosts over SSH: what they are, whether they will do, and what a node needs on them."""
