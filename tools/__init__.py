"""What this repository needs and the package does not: the bench, the pictures, the command line of the suite."""
