"""Language: tasks of prompts and answers that a program judges."""
