"""What is decided without a clock, a network or a wait: who is next, where it fits, where it fits best."""
