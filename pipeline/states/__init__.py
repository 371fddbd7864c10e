"""States of the model: their fields' order in the channel axis, and reading them from stores."""
