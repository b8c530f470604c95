"""Many runs in one report: `python -m mcjax.report`.

jobs.py          finds the jobs of sweeps, and plain runs, and reads what each has left
groups.py        groups jobs that differ only in their seed, and takes means
tidy_tables.py   jobs, rows and means as CSV and parquet
tables.py        the tables that people read: method by bonafide size, paths, settings
overlaid.py      the paths of runs that differ only in their seed
figures.py       means against the bonafide size, barriers, worst points
page.py          index.html and tables.md
"""
