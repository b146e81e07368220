"""What may leave a site: the door, the budget's rule, statistical disclosure control. Start at `door.let_out`."""
