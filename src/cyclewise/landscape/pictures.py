"""The pages of a diagnosis: findings in words, then the landscape in pictures and its numbers in tables."""

import math
from typing import TYPE_CHECKING

import numpy as np

from cyclewise.drawing import Chart, Line, Mark, Section, Table
from cyclewise.landscape.cliffs import Descent
from cyclewise.landscape.contours import contour
from cyclewise.landscape.journey import Journey
from cyclewise.landscape.measurements import Profile, Slice
from cyclewise.landscape.recurrence import Recurrence

if TYPE_CHECKING:
    from cyclewise.landscape.diagnosis import Diagnosis

_NUM_LEVELS = 7
_DISTANCE = "distance (norm of the parameters)"


def section(diagnosis: "Diagnosis") -> Section:
    """Return the diagnosis's part of a report, which leads with the findings in words."""
    tables = [_findings(diagnosis)] if diagnosis.findings else []
    tables.append(_numbers(diagnosis))
    if diagnosis.taylor is not None:
        tables.append(_taylor_table(diagnosis.taylor))
    if spent_on := diagnosis.settings.get("spent_on"):
        rows = [[what, f"{cost:.1f}"] for what, cost in spent_on.items()]
        tables.append(Table(["measurement", "gradient evaluations"], rows, caption="What it cost"))
    if diagnosis.unavailable:
        rows = [[name, diagnosis.why(name) or ""] for name in diagnosis.unavailable]
        tables.append(Table(["not measured", "why"], rows, caption="What could not be had"))
    return Section(
        title="What stands in the way",
        conclusion=_conclusion(diagnosis),
        charts=charts(diagnosis),
        tables=tables,
        settings={name: str(value) for name, value in diagnosis.settings.items() if name != "spent_on"},
    )


def charts(diagnosis: "Diagnosis") -> list[Chart]:
    """Return the pictures, as many as were measured."""
    found = []
    if diagnosis.profiles:
        found.append(_profile_chart(diagnosis.profiles))
    if diagnosis.taylor is not None:
        found.append(_taylor_chart(diagnosis.taylor, diagnosis))
    if diagnosis.own_step is not None:
        found.append(_step_chart(diagnosis.own_step, diagnosis))
    if diagnosis.density is not None:
        places, heights = diagnosis.density.curve()
        line = Line("density", places.tolist(), heights.tolist())
        found.append(
            Chart(
                "Spectrum of the Hessian",
                "eigenvalue",
                "density (log scale)",
                [line],
                y_log=True,
                caption="Positive: the loss curves up. A long tail to the right is what limits the rate.",
            )
        )
    if len(diagnosis.layers) > 1:
        depth = list(range(1, len(diagnosis.layers) + 1))
        found.append(
            Chart(
                "Gradient flow by layer",
                "layer, from the input",
                "root mean square (log scale)",
                [
                    Line("gradient", depth, [layer.gradient_norm for layer in diagnosis.layers], points=len(depth) < 3),
                    Line("activation", depth, [layer.activation for layer in diagnosis.layers], role="muted"),
                ],
                y_log=True,
                caption="A level line is healthy; one that falls towards the input fades, one that rises explodes.",
            )
        )
    if diagnosis.recurrences:
        found.append(_memory_chart(diagnosis.recurrences))
    if diagnosis.plane is not None:
        found.append(_plane_chart(diagnosis.plane))
    if diagnosis.journey is not None:
        found.append(_journey_chart(diagnosis.journey))
    return found or [Chart("Landscape", _DISTANCE, "loss", [], empty=str(diagnosis).rsplit(" loss ", 1)[0])]


def _conclusion(diagnosis: "Diagnosis") -> str:
    counted = [finding for finding in diagnosis.findings if finding.severity != "info"]
    if not counted:
        return f"Nothing stands in the way. {diagnosis}" if diagnosis.findings else str(diagnosis)
    return " ".join(f"{finding.summary} What to do: {finding.remedy}" for finding in counted)


def _findings(diagnosis: "Diagnosis") -> Table:
    rows = [
        [finding.severity, finding.kind.replace("_", " "), finding.summary, finding.evidence, finding.remedy]
        for finding in diagnosis.findings
    ]
    return Table(["severity", "finding", "summary", "evidence", "what to do"], rows, caption="Findings")


def _numbers(diagnosis: "Diagnosis") -> Table:
    bound = "at least " if diagnosis.condition_is_lower_bound else ""
    rows = [
        ["loss", _text(diagnosis.loss), ""],
        ["gradient norm", _text(diagnosis.gradient_norm), ""],
        ["curvature along the gradient g'Hg", _text(diagnosis.curvature_along_gradient), ""],
        ["best step g'g / g'Hg", _text(diagnosis.best_step), "learning rate"],
    ]
    for name, eigenvalue in (("sharpness", diagnosis.sharpness), ("smallest eigenvalue", diagnosis.lambda_min)):
        if eigenvalue is not None:
            rows.append([name, _text(eigenvalue.value), f"residual {eigenvalue.residual:.2g}"])
    if diagnosis.trace is not None:
        rows.append(["trace", _text(diagnosis.trace.value), f"± {diagnosis.trace.std_error:.2g}"])
    rows.append(["condition number", _text(diagnosis.condition_number), bound.strip()])
    error = diagnosis.noise_scale_std_error
    rows.append(
        ["noise scale", _text(diagnosis.noise_scale), "samples" + ("" if error is None else f", ± {error:.2g}")]
    )
    rows.append(["stability limit", _text(diagnosis.stability_limit), "learning rate"])
    rows.append(["spent", f"{diagnosis.spent:.0f}", "gradient evaluations"])
    return Table(["quantity", "value", "note"], rows, caption="Numbers")


def _taylor_table(taylor: Descent) -> Table:
    # At twice the best step the prediction is zero but for rounding.
    rounding = 1e-12 * max(map(abs, taylor.predicted), default=0.0)
    rows = [
        [_text(rate), _text(0.0 if abs(predicted) <= rounding else predicted), _text(actual)]
        for rate, predicted, actual in zip(taylor.factors, taylor.predicted, taylor.actual, strict=True)
    ]
    return Table(
        ["rate e", "predicted change", "actual change"], rows,
        caption="A step down the gradient: -e*g'g + e^2/2 * g'Hg against what the loss does",
    )  # fmt: skip


def _profile_chart(profiles: tuple[Profile, ...]) -> Chart:
    roles = ("primary", "secondary", "muted")
    lines = [
        Line(profile.name, profile.distances, profile.losses, role=roles[min(i, 2)])  # type: ignore[arg-type]
        for i, profile in enumerate(profiles)
    ]
    finite = [loss for profile in profiles for loss in profile.losses if math.isfinite(loss)]
    here = profiles[0].losses[profiles[0].distances.index(0.0)]
    # What lies far above the present loss would flatten everything else.
    spread = max(here - min(finite), 0.25 * (float(np.median(finite)) - min(finite)), 1e-12)
    return Chart(
        "Loss along directions", _DISTANCE, "loss", lines,
        marks=(Mark("here", 0.0, role="muted"),),
        y_limits=(min(finite) - 0.1 * spread, min(max(finite), here + 3.0 * spread) + 0.1 * spread),
        caption="Down the gradient, and along the directions of the largest and the smallest curvature.",
    )  # fmt: skip


def _taylor_chart(taylor: Descent, diagnosis: "Diagnosis") -> Chart:
    actual = [change for change in taylor.actual if math.isfinite(change)]
    lowest = min([*actual, *taylor.predicted])
    marks = []
    if diagnosis.best_step is not None:
        marks.append(Mark("best step", diagnosis.best_step, role="secondary"))
    if diagnosis.lr:
        marks.append(Mark("the optimizer's rate", diagnosis.lr))
    return Chart(
        "A step down the gradient", "rate (log scale)", "change of the loss",
        [Line("actual", taylor.factors, taylor.actual),
         Line("predicted", taylor.factors, taylor.predicted, role="secondary", dashed=True)],
        marks=marks,
        x_log=True,
        y_limits=(1.2 * lowest, 2.0 * abs(lowest)) if lowest < 0 else None,
        caption="Where the curve crosses zero, the step costs more than it gains.",
    )  # fmt: skip


def _step_chart(step: Descent, diagnosis: "Diagnosis") -> Chart:
    shares = [0.0, *step.factors]
    return Chart(
        "The optimizer's own next step", "share of the step", "change of the loss",
        [Line("actual", shares, [0.0, *step.actual]),
         Line("predicted", shares, [0.0, *step.predicted], role="secondary", dashed=True)],
        marks=(Mark("the step", 1.0, role="muted"),),
        caption=f"What the next step does at the rate {_text(diagnosis.lr)}, momentum and all.",
    )  # fmt: skip


def _memory_chart(recurrences: tuple[Recurrence, ...]) -> Chart:
    lines = [
        Line(r.name, list(range(r.num_steps)), r.influence, role="primary" if i == 0 else "secondary")
        for i, r in enumerate(recurrences)
    ]
    return Chart(
        "Gradient flow by lag", "lag (steps back from the end)", "influence on the last state (log scale)", lines,
        y_log=True,
        caption="Falling: what came early is forgotten. Rising: it explodes.",
    )  # fmt: skip


def _plane_chart(plane: Slice) -> Chart:
    values = np.array(plane.losses, dtype=np.float64)
    finite = values[np.isfinite(values)]
    lines = []
    if len(finite) and finite.max() > finite.min():
        # Quantiles, so that the lines lie where the grid's points are, not on one steep wall.
        levels = np.unique(np.quantile(finite, np.linspace(0.05, 0.9, _NUM_LEVELS)))
        for i, level in enumerate(levels):
            xs, ys = contour(plane.x, plane.y, values, float(level))
            if xs:
                role = "secondary" if i == 0 else "muted"
                lines.append(Line(f"loss {level:.3g}", xs, ys, role=role, dashed=i > 0))  # type: ignore[arg-type]
    caption = "Lines of equal loss; the solid one is the lowest."
    if plane.path:
        lines.append(Line("from the start", [x for x, _ in plane.path], [y for _, y in plane.path]))
    if len(plane.path) > 2 and plane.path_share is not None:
        caption += f" The plane shows {plane.path_share:.0%} of the path's squared distances from here."
    lines.append(Line("here", [0.0], [0.0], points=True))
    return Chart(
        "A slice of the landscape", f"along {plane.x_name}", f"along {plane.y_name}", lines,
        caption=caption,
    )  # fmt: skip


def _journey_chart(journey: Journey) -> Chart:
    return Chart(
        "Straight from the start", "share of the way", "loss",
        [Line("loss on the straight line", journey.positions, journey.losses)],
        caption="A hump between start and present: training had to go around.",
    )  # fmt: skip


def _text(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"
