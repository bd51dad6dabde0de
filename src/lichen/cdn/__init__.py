"""How content travels: who has it, and how it gets where it is asked for."""
