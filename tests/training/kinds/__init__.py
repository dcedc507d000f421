"""Ways in which user code can do other things than a trial of a few steps saw, as users would write them, by family.

Each file stands alone, as a user's does: what it imports it finds beside itself.
"""
