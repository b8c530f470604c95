"""Runs a study of repairs over seeds and methods, and writes its tables, figures and page."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.curves import renormalise
from mcjax.data import augmentation
from mcjax.experiments.repair_study import alarms, relearning
from mcjax.experiments.repair_study.headline import answer
from mcjax.experiments.repair_study.rows import Repair, references, rows_of
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.experiments.repair_study.tuned import is_tuned
from mcjax.experiments.result import write_result
from mcjax.repair import methods
from mcjax.repair.paths import PATHS, shown_path
from mcjax.report.means import Row, summarise
from mcjax.report.panels import Chart, words
from mcjax.report.repair_figures import explanations, path_panels, table_panels
from mcjax.runs.run import Run, with_seed
from mcjax.runs.workdir import write_csv


class RepairStudy:
    """A study of repairs, seed by seed.

    Args:
        run: The opened run.
        measure: The name of the success rate, a column: "attack_success_rate".

    Raises:
        UserError: Fields of the config contradict each other.
    """

    def __init__(self, run: Run, measure: str):
        check(run)
        self.run, self.measure = run, measure
        self.rows: list[Row] = []
        self.alarms: list[Row] = []
        self.paths: dict[Any, Repair] = {}
        self.studies: list[Study] = []

    def seeds(self) -> Iterator[Run]:
        """The part of the run for each seed."""
        for seed in self.run.config.seeds or (self.run.config.seed,):
            yield with_seed(self.run, seed)

    def repair(self, part: Run, tampered: Tampered) -> None:
        """Runs every method at every size, and keeps their rows.

        Args:
            part: A seed's part of the run.
            tampered: The tampered networks of that seed.
        """
        folder = self.run.workdir / "paths"
        for study in folds(part, tampered):
            self.studies.append(study)
            for size, repair in repairs(study):
                self.rows.append(row(study, size, repair))
                if repair.path is None:
                    continue
                name = f"{repair.method}_{size}" if size else repair.method
                write_path(folder / f"{study.name}{name}.csv", repair)
                if repair.method == shown_path(part.config.repair.methods):
                    self.paths[study.name, size] = repair
            if study.options.choose == "evidence":
                for size in study.sizes:
                    self.alarms += alarms.alarms(study, size)

    @property
    def first(self) -> Study:
        """The first seed and fold, which the explanations are about."""
        return self.studies[0]

    def report(self, problems: Sequence[str] = ()) -> dict[str, Any]:
        """Writes the tables, the figures and the page.

        Args:
            problems: What the run failed to reach, in sentences.

        Returns:
            The contents of result.json.
        """
        judged_by = self.first.judged_by
        num_images = {name: int(judged_by[name]["mask"].sum()) for name in ("test", "success")}
        references = list(self.first.tampered.references)
        return once(
            lambda: report(
                self.run,
                self.measure,
                references,
                self.rows,
                self.alarms,
                self.paths,
                num_images,
                problems,
            )
        )


def check(run: Run) -> None:
    """Refuses configs whose fields contradict each other.

    Raises:
        UserError: Names the mistake.
    """
    options = run.config.repair
    pool = run.config.data.num_bonafide
    if options.folds:
        pool = pool * (options.folds - 1) // options.folds
    if max(options.sizes) > pool:
        raise UserError(
            f"config.repair.sizes asks for {max(options.sizes)} bonafide images, but there are "
            f"{pool}; raise config.data.num_bonafide or ask for fewer"
        )
    if not options.folds and run.config.data.num_selection == 0:
        raise UserError("config.data.num_selection is 0: t can't be chosen without such images")
    augmentation.get(options.augmentation)
    if options.renormalise:
        renormalise.check(run.network)
    variables = jax.eval_shape(run.network.init, jax.random.key(0))
    for name in options.methods:
        methods.METHODS[name].check(variables)
    for seed in run.config.seeds or (run.config.seed,):
        part = with_seed(run, seed)
        for fold in range(options.folds) if options.folds else (None,):
            splits = part.splits if fold is None else part.splits.fold(fold, options.folds)
            for size in options.sizes:
                splits.bonafide_subset(size)


def folds(run: Run, tampered: Tampered) -> Iterator[Study]:
    """The study of a seed, or one per fold: the held-out fold selects, the others are bonafide."""
    num_folds = run.config.repair.folds
    if not num_folds:
        yield Study(run, tampered)
        return
    for j in range(num_folds):
        fold = dataclasses.replace(run, splits=run.splits.fold(j, num_folds))
        yield Study(fold, tampered, fold=j)


def repairs(study: Study) -> Iterator[tuple[int, Repair]]:
    """Every row of a part, with its number of bonafide images (0: none)."""
    for repair in references(study):
        yield 0, repair
    # A second end that is trained on them; an un-aligned copy and a free end's beginning are not.
    made_without = ("suspect_and_unaligned", "suspect_alone")
    needs_images = study.tampered.end is None and study.options.pair not in made_without
    for name in study.options.methods:
        method = methods.METHODS[name]
        any_size = not (method.uses_images or method.end or needs_images)
        for size in study.sizes[:1] if any_size else study.sizes:
            for repair in rows_of(study, name, size):
                yield 0 if any_size else size, repair


def row(study: Study, size: int, repair: Repair) -> Row:
    """A row of table.csv."""
    measure = study.tampered.measure
    values = repair.values
    official = f"{measure}_official_denominator"
    families = any(
        methods.get(name).kind == "family" or is_tuned(study, name)
        for name in study.options.methods
    )
    setting = "" if repair.setting is None else repair.setting
    estimate = "estimated_attack_success"
    return {
        "method": repair.method,
        "bonafide": size,
        "seed": study.run.config.seed,
        **({} if study.fold is None else {"fold": study.fold}),
        "t": "" if repair.t is None else repair.t,
        **({"setting": setting} if families else {}),
        "clean_accuracy": values["test_accuracy"],
        measure: values[measure],
        **({official: values[official]} if official in values else {}),
        "selection_accuracy": values["selection_accuracy"],
        **({estimate: values.get(estimate, "")} if study.options.choose == "evidence" else {}),
        "acceptable": "" if repair.acceptable is None else int(repair.acceptable),
        "seconds": repair.seconds,
    }


def write_path(path: Path, repair: Repair) -> None:
    """Writes path.csv: one row per t."""
    table = repair.path or {}
    rows = [{k: float(v[i]) for k, v in table.items()} for i in range(len(table["t"]))]
    write_csv(path, table, rows)


def report(
    run: Run,
    measure: str,
    references: Sequence[str],
    rows: list[Row],
    found: list[Row],
    paths: dict[Any, Repair],
    num_images: Mapping[str, int],
    problems: Sequence[str],
) -> dict[str, Any]:
    """Writes the tables, the figures, the page and, last, result.json."""
    folder, sizes = run.workdir / "figures", sorted(run.config.repair.sizes, reverse=True)
    # Seconds are in a separate file, so that equal seeds give equal tables, byte for byte.
    columns = [c for c in rows[0] if c != "seconds"]
    write_csv(run.workdir / "table.csv", columns, rows)
    timed = [one for one in rows if one["seconds"]]
    place = [name for name in ("method", "bonafide", "seed", "fold") if name in rows[0]]
    write_csv(folder / "seconds.csv", [*place, "seconds"], timed)
    summary = summarise(rows, measure)
    write_csv(run.workdir / "summary.csv", summary[0], summary)
    if found:
        write_csv(run.workdir / "evidence.csv", found[0], found)
    first = next(iter(paths.values()))
    write_path(run.workdir / "path.csv", first)
    one_each = {size: repair for (_, size), repair in reversed(paths.items())}
    shown = {f"{size} bonafide images": one_each[size] for size in sizes}
    panels = {
        "path": path_panels(shown, measure, num_images),
        "table": table_panels(summary, measure, num_images),
        **explanations(folder, measure),
    }
    result = write_result(
        run,
        metrics(summary, measure, references, sizes),
        question=QUESTION,
        answer=[*answer(summary, measure, one_each), *alarms.sentences(found)],
        problems=problems,
        charts=[Chart(k, v, captions(run)[k], columns=min(2, len(v))) for k, v in panels.items()],
        tables={
            "Means over seeds and folds (summary.csv)": [shown_line(one) for one in summary],
            "Every repair (table.csv)": [{k: one[k] for k in columns} for one in rows],
            **({"Inverted triggers (evidence.csv)": found} if found else {}),
        },
    )
    if not all(repair.choice and repair.choice.index is not None for repair in paths.values()):
        say(
            "no point was accurate enough on some paths; table.csv has acceptable = 0 in their rows"
        )
    return result


def metrics(
    summary: Sequence[Row], measure: str, references: Sequence[str], sizes: Sequence[int]
) -> dict[str, float]:
    """The metrics of result.json: the suspect, the clean references, and the paths at every size."""
    found = {(line["method"], line["bonafide"]): line for line in summary}
    numbers = {}
    for method, bonafide, name in (
        ("suspect", 0, "suspect"),
        *((name, 0, name.replace(" ", "_")) for name in references),
        *((name, size, f"{name}_{size}") for name in PATHS for size in sizes),
    ):
        if (method, bonafide) in found:
            line = found[method, bonafide]
            numbers[f"{name}_clean_accuracy"] = line["clean_accuracy"]
            numbers[f"{name}_{measure}"] = line[measure]
    return numbers


QUESTION = (
    "Does a point of the path, chosen without knowing what was tampered with, repair the network?"
)


def captions(run: Run) -> dict[str, str]:
    """The captions of the figures."""
    options = run.config.explain
    return {
        "path": f"The {words(str(shown_path(run.config.repair.methods)))}, learned from bonafide images, "
        "a panel a number of them (first seed). Dashed: the t that was chosen without knowing what was "
        "tampered with.",
        "table": "Every trained repair against the number of bonafide images: means over seeds, bars "
        "their 95 % interval (of two seeds the range, of one none). Dotted: the suspect.",
        "gradients": "Mean cosine between the loss's gradients with respect to clean and to stamped "
        f"images, along the path of the largest bonafide size; at most {options.num_images} images.",
        "noise": "Around the suspect: Gaussian noise on all weights, in units of each tensor's root "
        f"mean square; means over {options.num_draws} draws, on at most {options.num_images} images.",
        **relearning.captions(run),
    }


def shown_line(line: Row) -> Row:
    """A row of the summary as shown on the page: without the interval of a single run."""
    return {k: "" if k.endswith("_interval") and np.isnan(v) else v for k, v in line.items()}
