"""Finds ``conf/`` and checks a config against the signatures that it names; free of torch."""
