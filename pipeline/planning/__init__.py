"""What a training would need of devices that are not here, read from its compiled programs."""
