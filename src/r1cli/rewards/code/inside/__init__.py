"""What runs inside the sandbox's processes. Standard library only, imported by `child.py` without the rest of r1cli."""
