"""The commands of the offline half, one file each."""
