"""Faults on real servers and processes: nothing lost, nothing twice, nobody let in."""
