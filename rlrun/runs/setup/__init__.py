"""How the parts of a run are made, fitted to each other and given back their states."""
