"""What a run would need before anything starts: memory, time and money, by published formulas and dated tables."""
