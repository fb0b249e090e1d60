"""What there is to say of the command line: its help, a setting's, and completion."""
