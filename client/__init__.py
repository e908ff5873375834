"""One institution: its records, its budget, its border, its SuperNode and runner."""
