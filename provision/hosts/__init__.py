"""Other hosts over SSH: what they are, whether they are ready, and what a node needs on them."""
