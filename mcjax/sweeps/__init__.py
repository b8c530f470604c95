"""Sweeps: many runs, declared in one file and run by an engine.

declare.py          sweep files: a base config, and overrides for each job
store.py            the sweep's folder: declared jobs, results, the status of each job
attempts.py         the attempts of a job: one folder each, and how one resumes another
worker.py           one attempt: runs `mcjax.train` and publishes its result
engines/            run workers: on this machine, on Ray, on Slurm
launcher.py         the command `python -m launch.sweep`
progress_board.py   what the launcher shows while jobs run
counted_work.py     the operations of a study, counted from its config
cost.py             the hours and the price of a sweep: `python -m launch.cost`
"""
