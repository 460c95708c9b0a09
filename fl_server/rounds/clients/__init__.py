"""What a run knows of its clients: who is there, who holds which slot, who was asked and what came of it."""
