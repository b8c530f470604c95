"""Ten minutes of an accelerator, turned into evidence: see benchmarks/README.md.

`__main__` plans and runs; `plan` lists the pieces in order of value; each other module is one piece,
a generator of rows that knows nothing of files and processes; `record` keeps the rows, `table` writes the page.
"""
