"""The report: tables as CSV, Markdown, LaTeX and HTML, figures as PNG and SVG, and one page with all of them."""
