"""What a trained recurrence does: gates, gradients, memory and fixed points, as numbers and as one page."""
