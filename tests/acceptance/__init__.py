"""What users see, over the whole real stack; a package, so that its shared stacks end with its last test."""
