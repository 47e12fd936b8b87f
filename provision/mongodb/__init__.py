"""What is MongoDB's: topologies, binaries, configuration, replica sets, logs."""
