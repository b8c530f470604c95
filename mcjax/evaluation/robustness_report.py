"""The checks that a claim of robustness needs, in one call, and what they say about gradient masking."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.checks import check_count, check_examples, check_sizes
from mcjax.attacks.images.apgd import apgd
from mcjax.attacks.images.autoattack import autoattack
from mcjax.attacks.images.autoattack_result import AutoAttackResult
from mcjax.attacks.images.autoattack_rounds import STANDARD
from mcjax.attacks.images.balls import BALLS
from mcjax.attacks.images.pgd import LogitsFn, pgd
from mcjax.attacks.images.square import square
from mcjax.core.errors import UserError
from mcjax.core.keys import check_key, stream
from mcjax.core.tree import as_partial

FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The radii of `accuracy_at`, in units of eps; the radius of the whole box is added."""
TOLERANCE = 0.01
"""The fraction of images by which one attack may beat another by chance."""


@dataclasses.dataclass(frozen=True)
class RobustnessReport:
    """The result of `robustness_report`; accuracies are fractions of all images.

    Attributes:
        accuracy: Without an attack.
        autoattack: The result of `autoattack`.
        apgd: Robust accuracy under APGD on the cross-entropy: the gradient attack that others are compared with.
        pgd: Under PGD with more steps and restarts.
        square: Under Square alone.
        noise: Correct at every one of some random points of the ball.
        transfer: On images made against the other network; None without one.
        accuracy_at: Robust accuracy under APGD by radius.
        signs: What speaks for gradient masking, or for a too weak evaluation.
    """

    accuracy: float
    autoattack: AutoAttackResult
    apgd: float
    pgd: float
    square: float
    noise: float
    transfer: float | None
    accuracy_at: dict[float, float]
    signs: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The signs in one line, or "no sign of masking"."""
        return "; ".join(self.signs) or "no sign of masking"

    def __str__(self) -> str:
        rows = {
            "accuracy": self.accuracy,
            "random noise": self.noise,
            "transfer": self.transfer,
            "Square alone": self.square,
            "APGD": self.apgd,
            "PGD, more steps and restarts": self.pgd,
            "AutoAttack": self.autoattack.robust_accuracy,
        }
        lines = [f"{name}: {value:.4f}" for name, value in rows.items() if value is not None]
        lines += [f"APGD, eps {eps:.4g}: {value:.4f}" for eps, value in self.accuracy_at.items()]
        return "\n".join([*lines, self.verdict])


def robustness_report(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    y: jax.Array,
    *,
    eps: float,
    norm: str = "linf",
    other: LogitsFn | None = None,
    num_steps: int = 100,
    num_queries: int = 5000,
    pgd_num_steps: int = 200,
    pgd_num_restarts: int = 5,
    num_noise: int = 100,
    batch_size: int = 512,
    progress_fn: Callable[[str], object] | None = None,
) -> RobustnessReport:
    """AutoAttack and the checks that show where its number cannot be believed.

    A network that hides its gradients looks robust to gradient attacks. Signs of it (Athalye et al. 2018;
    Carlini et al. 2019): Square, random noise or images made against another network fool more images
    than all attacks by gradients together; the accuracy does not fall to 0 when the ball is the whole box, or rises with the
    radius; gradients are zero at correct images. PGD with more steps that beats AutoAttack shows that the
    ensemble was not enough. Differences up to 1 % of the images (at least one image) count as chance.

    Args:
        key: Key of all random numbers.
        logits_fn: `logits_fn(x) -> logits [b, classes]`, see `autoattack`.
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, above 0, in units of the images.
        norm: "linf", "l2" or "l1".
        other: Another network, for transfer; e.g. trained with another seed, without a defence.
        num_steps: Steps of APGD and FAB.
        num_queries: Queries of Square.
        pgd_num_steps: Steps of PGD per start, of size eps / 10.
        pgd_num_restarts: Starts of PGD.
        num_noise: Random points per image.
        batch_size: Most images per program.
        progress_fn: Called with the name of each check before it runs.

    Returns:
        A `RobustnessReport`; print it, or look at `.verdict` and `.signs`.

    Raises:
        UserError: eps is 0; otherwise as `autoattack`.

    Example:
        >>> x, y = jnp.full((4, 1, 1, 2), 0.5).at[:, 0, 0, 0].add(jnp.arange(4) / 8), jnp.zeros(4, int)
        >>> logits_fn = lambda x: x[:, 0, 0, :] + jnp.array([[0.01, 0.0]])
        >>> report = robustness_report(
        ...     jax.random.key(0), logits_fn, x, y, eps=0.1, num_steps=10, num_queries=50,
        ...     pgd_num_steps=20, num_noise=5,
        ... )
        >>> report.verdict, report.autoattack.robust_accuracy
        ('no sign of masking', 0.5)

    Source: Carlini et al. 2019, sections 3 and 5; Athalye et al. 2018, section 3.1.
    """
    check_sizes(eps=eps)
    if not eps > 0:
        raise UserError("eps is 0; give the radius, above 0, that robustness is claimed for")
    for name, value in (
        ("pgd_num_steps", pgd_num_steps), ("pgd_num_restarts", pgd_num_restarts),
        ("num_noise", num_noise), ("batch_size", batch_size),
    ):  # fmt: skip
        check_count(name, value)
    key, logits_fn = check_key(key), as_partial(logits_fn)
    check_examples(logits_fn, x, y)
    say = progress_fn or (lambda name: None)
    pieces = [slice(i, i + batch_size) for i in range(0, len(x), batch_size)]

    def correct(images: jax.Array) -> np.ndarray:
        return np.concatenate([np.asarray(logits_fn(images[p]).argmax(-1) == y[p]) for p in pieces])

    def under(
        name: str, attack: Callable[..., jax.Array], network: LogitsFn = logits_fn
    ) -> np.ndarray:
        """Whether images stay correct under an attack on a network."""
        say(name)
        own = stream(key, name)
        found = [attack(stream(own, "piece", i), network, x[p], y[p]) for i, p in enumerate(pieces)]
        return clean & correct(jnp.concatenate(found))

    clean = correct(x)
    say("autoattack")
    ensemble = autoattack(
        stream(key, "autoattack"), logits_fn, x, y, eps=eps, norm=norm,
        num_steps=num_steps, num_queries=num_queries, batch_size=batch_size,
    )  # fmt: skip

    def by_apgd(radius: float) -> Callable[..., jax.Array]:
        return lambda *a: apgd(*a, eps=radius, norm=norm, num_steps=num_steps)

    whole_box = {"linf": 1.0, "l2": float(np.sqrt(x[0].size)), "l1": float(x[0].size)}[norm]
    radii = sorted({min(f * eps, whole_box) for f in FACTORS} | {whole_box})
    at = {r: under(f"apgd at {r:.4g}", by_apgd(r)) if r else clean for r in radii}
    gradient = at[min(eps, whole_box)]
    strong = under(
        "pgd",
        lambda key, network, x, y: pgd(
            key, network, x, y, eps=eps, step_size=eps / 10, num_steps=pgd_num_steps, norm=norm,
            num_restarts=pgd_num_restarts, early_stop=True,
        ),
    )  # fmt: skip
    black_box = under("square", lambda *a: square(*a, eps=eps, norm=norm, num_queries=num_queries))
    transferred = None
    if other is not None:
        transferred = under(
            "transfer",
            lambda *a: apgd(*a, eps=eps, norm=norm, num_steps=num_steps, early_stop=False),
            as_partial(other),
        )
    # What withstands the ensemble's attacks by gradients, i.e. all but Square.
    fooled_by = np.asarray(ensemble.fooled_by)
    by_gradients = (fooled_by == -1) | (fooled_by == 1 + STANDARD.index("square"))
    say("noise")
    noise = clean
    for i in range(num_noise):
        delta = BALLS[norm].start(stream(key, "noise", i), x, eps)
        noise = noise & correct((x + delta).clip(0, 1))
    found = {
        "Square": black_box, "random noise": noise, "transfer from the other network": transferred,
    }  # fmt: skip
    return RobustnessReport(
        accuracy=float(clean.mean()),
        autoattack=ensemble,
        apgd=float(gradient.mean()),
        pgd=float(strong.mean()),
        square=float(black_box.mean()),
        noise=float(noise.mean()),
        transfer=None if transferred is None else float(transferred.mean()),
        accuracy_at={r: float(v.mean()) for r, v in at.items()},
        signs=_signs(gradient & strong & by_gradients, found, strong, ensemble, at),
    )


def _signs(
    gradient: np.ndarray,
    found: dict[str, np.ndarray | None],
    strong: np.ndarray,
    ensemble: AutoAttackResult,
    at: dict[float, np.ndarray],
) -> tuple[str, ...]:
    chance = max(TOLERANCE * len(gradient), 1)
    signs = []
    for name, robust in found.items():
        if robust is not None and (more := int(gradient.sum() - robust.sum())) > chance:
            signs.append(f"{name} fools {more} images more than the gradient attacks")
    radii = list(at)
    left = int(at[radii[-1]].sum())
    if left > chance:
        signs.append(
            f"{left} images stay correct though eps = {radii[-1]:.4g} reaches the whole box"
        )
    for smaller, larger in itertools.pairwise(radii):
        if (more := int(at[larger].sum() - at[smaller].sum())) > chance:
            signs.append(
                f"{more} images more withstand APGD at eps = {larger:.4g} than at {smaller:.4g}"
            )
    if zero := int(ensemble.zero_gradient.sum()):
        signs.append(f"the gradient is zero at {zero} correct images")
    if (more := int(np.asarray(ensemble.robust).sum() - strong.sum())) > chance:
        signs.append(f"PGD with more steps fools {more} images more than AutoAttack")
    return tuple(signs)
