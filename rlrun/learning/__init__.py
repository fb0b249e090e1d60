"""What fits networks: learners, optimisers, surrogates, penalties, trust regions."""
