"""Ranks the methods of several backdoor runs by what they remove and what they cost, as Markdown.

    python -m mcjax.report.ranking runs/backdoor-square-HASH runs/backdoor-wanet-HASH

The score of a repair is (attack success removed) - (clean accuracy lost), both against the run's suspect. A method's
score is its mean over the attacks, an attack's the mean over its seeds (and folds). The first table ranks the methods
at every number of bonafide images. Then two tables per number of images: means over the attacks (with the highest attack
success of a run, the re-learning test where it was made, and the median seconds of training), and "clean accuracy / attack
success" per attack, means over seeds, with the highest attack success of a seed in brackets. Where all attacks have the
same seeds, means over attacks have the 95 % interval over them, of two seeds both values. Rows that somebody without
the trigger could not have chosen ("at the oracle's", fixed settings) are left out; the scores of the oracle's setting
and of the best one stand beside a method's own. Runs that are ranked together may differ in the trigger, the seeds, the
sizes and the methods only.

Runs that choose t by evidence get two more tables, on how right it was: the verdict on suspects and clean networks, and
the estimated attack success along the paths.

--keep FILE.json writes the records of all runs to one small file, which can be given later in place of the runs:

    python -m mcjax.report.ranking study.json runs/one_more --keep study.json

A repair that two runs have (the same method, attack, seed and size) counts once, the first time.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mcjax.core.errors import UserError
from mcjax.core.files import as_path
from mcjax.core.progress import say
from mcjax.report import run_record


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("keep", None, "A .json file to write the records of all runs to.")


def main(*names: str) -> None:
    """Prints the tables of all runs together."""
    print(ranked(names, keep=flags.FLAGS.keep))


def ranked(names: Sequence[str], *, keep: str | None = None) -> str:
    """The tables of all runs together, as Markdown.

    Args:
        names: Folders of finished backdoor runs, and files of records.
        keep: The file to write the records of all of them to.

    Raises:
        UserError: A run is unfinished, or the runs are not comparable.
    """
    if not names:
        raise UserError("no run was given; add the folders of backdoor runs, or files of records")
    places, file = [as_path(name) for name in names], None if keep is None else as_path(keep)
    if file is not None:
        check_free(file, places)
    records = [record for place in places for record in run_record.read(place)]
    run_record.check_comparable(records)
    records, notes = run_record.each_once(records)
    for note in notes:
        say(note)
    shown = run_record.tables(records)
    if file is not None:
        run_record.save(file, records)
        say(f"wrote the records of {len(records)} runs to {file}")
    return shown


def check_free(file: Path, places: Sequence[Path]) -> None:
    """Refuses a file to write whose contents would be lost.

    Raises:
        UserError: The file exists and is not among the places that are read, or is not a .json file.
    """
    if file.suffix != ".json":
        raise UserError(f"--keep={file} does not end in .json; give a name that does")
    if file.exists() and file.resolve() not in [place.resolve() for place in places]:
        raise UserError(
            f"{file} exists; add it to the runs to keep its records too, or give --keep another name"
        )
