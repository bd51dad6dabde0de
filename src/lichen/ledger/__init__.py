"""What everybody agrees on: a pure state machine and the engines that order its transactions."""
