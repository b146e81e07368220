"""What is computed: secure sums, their disclosure, the algorithms over them, and the runs that put them in order."""
