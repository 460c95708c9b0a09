"""How updates become the next model: one file an algorithm, and the registry of them."""
