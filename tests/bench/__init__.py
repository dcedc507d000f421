"""How long whole sweeps take, against the plain loop one would write instead. Run: python -m tests.bench"""
