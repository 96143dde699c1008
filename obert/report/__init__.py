"""The report: tables and figures as files, LaTeX and one HTML page."""
