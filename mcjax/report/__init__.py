"""Figures, tables and HTML pages for runs.

panels.py                what a figure of lines shows: the one description of every chart
figures.py, chart.py     draw charts: as PNG and PDF with Matplotlib, as SVG on pages
connect_figures.py, evasion_figures.py, repair_figures.py, stamps.py   the figures of experiments
html.py, templates/      the pages' HTML
page.py, repaired_page.py   the pages of runs and of `python -m mcjax.repair`
definitions.py           the meaning of every number on a page
means.py                 means over seeds with their intervals
repair_ranking.py        the methods of repair over several attacks, as Markdown
run_tables.py            what a ranking needs of a run's folder
run_record.py            the same of many runs, kept in a small file
evidence_truth.py        how right inverted triggers were, as Markdown
"""
