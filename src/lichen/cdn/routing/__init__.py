"""Delegated routing: who has what, said and read as `/routing/v1` has it."""
