"""What each of our processes needs around its work: forking, health, metrics, memory, environment."""
