"""The search of when and how to switch, on KerasTuner."""
