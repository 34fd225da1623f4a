"""What figures look like: pictures and pages of frontiers and of layers."""
