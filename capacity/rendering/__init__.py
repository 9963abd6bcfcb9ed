"""An answer made visible: text for a terminal, lines for grep, HTML for a notebook, a record for JSON."""
