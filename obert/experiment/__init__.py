"""An experiment: its schema, the checks of its files, and the plan of its runs."""
