"""What both engines compute with: the likelihood with w integrated out, its maximum, and w given the data."""
