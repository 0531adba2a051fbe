"""What authors of agents use: a new folder, checks, a run without a stack, packages, a look at changed files."""
