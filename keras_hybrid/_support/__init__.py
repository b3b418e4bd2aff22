"""What is not about optimizers: checks, files, processes, versions."""
