"""What is descended: surrogates and errors, penalties, and how single losses become one."""
