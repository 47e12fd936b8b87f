"""How a node becomes a running mongod: one protocol, several answers."""
