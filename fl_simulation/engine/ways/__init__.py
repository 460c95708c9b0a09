"""The ways of training a cohort, and the choice among them."""
