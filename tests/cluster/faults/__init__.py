"""Faults on a cluster of real processes, and what they may cost: ``make faults``."""
