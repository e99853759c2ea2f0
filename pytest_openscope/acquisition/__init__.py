"""Running, watching and stopping the programs that acquire data."""
