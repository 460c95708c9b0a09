"""What Flower's messages carry: arrays and records, packed and checked."""
