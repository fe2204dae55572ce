"""The record of a diagnosis: the numbers with their errors, what they mean in words, and what could not be had."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cyclewise._validation import reading_record
from cyclewise.drawing import Section
from cyclewise.landscape.findings import Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cyclewise.landscape.cliffs import Descent
    from cyclewise.landscape.density import Density
    from cyclewise.landscape.flow import LayerFlow
    from cyclewise.landscape.journey import Journey
    from cyclewise.landscape.measurements import Eigenvalue, Estimate, Inputs, Profile, Signal, Slice
    from cyclewise.landscape.noise import LayerNoise
    from cyclewise.landscape.recurrence import Recurrence
    from cyclewise.landscape.unavailable import Unavailable

_VERSION = 2


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What stands in the way of training, measured at one point.

    Gradient g and Hessian H are those of the mean loss over the batches. What could not be had is None, and
    `unavailable` says why, and :meth:`why` in words.

    Attributes:
        findings: what was found, the most severe first; empty where nothing stands in the way.
        loss: mean loss over the batches.
        num_parameters: numbers that require a gradient.
        gradient_norm: length of g.
        parameter_norm: length of the parameters.
        curvature_along_gradient: g'Hg.
        best_step: g'g / g'Hg, the rate at which a step down the gradient helps most by the quadratic model; None where
            the curvature along the gradient is not positive.
        sharpness: the largest eigenvalue of H.
        lambda_min: the smallest, negative where the loss curves down.
        trace: of H.
        condition_number: the largest eigenvalue over the smallest positive one above the numerical null space.
        condition_is_lower_bound: whether the true one may be larger, because not all eigenvalues were computed.
        noise_scale: samples at which the gradient's noise and signal are equally long.
        noise_scale_std_error: its standard error.
        stability_limit: the largest stable learning rate of the optimizer given, by the quadratic model.
        spent: what it cost, in gradient evaluations: forward and backward over all batches.
        unavailable: attribute name -> why it is None, as a member of
            :class:`~cyclewise.landscape.unavailable.Unavailable`.
        details: attribute name -> more about that, such as the module that stands in the way.
        taylor: predicted against actual change of the loss down the gradient, over a range of rates.
        lr: the learning rate of the optimizer's fastest group.
        own_step: the same along shares of the optimizer's own next step, tried and taken back.
        signal: the gradient against its own noise.
        profiles: the loss along some directions.
        layer_noises: signal against noise by parameter.
        layers: activations and gradients by layer, from the input on.
        flow_factor: by what the gradient changes per layer on the way back; None for fewer than three places.
        flow_total: by what it changes from the output to the first layer.
        update_factor: by what the gradient of a layer's weights over their length changes per layer on the way back.
        inputs: mean squares of what the first layers are fed with.
        recurrences: the gradient's way back through time, by recurrent layer.
        plane: the loss on a plane.
        density: the distribution of the eigenvalues.
        journey: the way from the start, where `start` was given.
        settings: the arguments, and what was spent on what.

    Example:
        >>> from cyclewise.landscape.measurements import Eigenvalue
        >>> finding = Finding("unstable_step", "severe", "The rate is 20 times the limit.", "2.0 > 0.1", "Lower it.")
        >>> record = Diagnosis(loss=1.0, num_parameters=3, findings=(finding,), sharpness=Eigenvalue(20.0, 1e-4))
        >>> print(record)
        1 severe: The rate is 20 times the limit. Sharpness 20; loss 1; 0 gradient evaluations
        >>> Diagnosis.from_dict(record.to_dict()) == record
        True
    """

    loss: float
    num_parameters: int
    findings: tuple[Finding, ...] = ()
    gradient_norm: float | None = None
    parameter_norm: float | None = None
    curvature_along_gradient: float | None = None
    best_step: float | None = None
    sharpness: "Eigenvalue | None" = None
    lambda_min: "Eigenvalue | None" = None
    trace: "Estimate | None" = None
    condition_number: float | None = None
    condition_is_lower_bound: bool = False
    noise_scale: float | None = None
    noise_scale_std_error: float | None = None
    stability_limit: float | None = None
    spent: float = 0.0
    unavailable: "Mapping[str, Unavailable]" = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    taylor: "Descent | None" = None
    lr: float | None = None
    own_step: "Descent | None" = None
    signal: "Signal | None" = None
    profiles: "tuple[Profile, ...]" = ()
    layer_noises: "tuple[LayerNoise, ...]" = ()
    layers: "tuple[LayerFlow, ...]" = ()
    flow_factor: float | None = None
    flow_total: float | None = None
    update_factor: float | None = None
    inputs: "tuple[Inputs, ...]" = ()
    recurrences: "tuple[Recurrence, ...]" = ()
    plane: "Slice | None" = None
    density: "Density | None" = None
    journey: "Journey | None" = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Diagnosis) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.loss, self.num_parameters, self.gradient_norm, self.findings))

    def with_findings(self, findings: tuple[Finding, ...]) -> "Diagnosis":
        """Return the record with these findings instead of its own."""
        return replace(self, findings=findings)

    def profile(self, name: str) -> "Profile | None":
        """Return the loss along the direction `name`; None where it was not measured."""
        return next((profile for profile in self.profiles if profile.name == name), None)

    def why(self, name: str) -> str | None:
        """Return in words why the attribute `name` could not be had; None where it could."""
        reason = self.unavailable.get(name)
        return None if reason is None else self.details.get(name, str(reason))

    def __str__(self) -> str:
        counts = [
            f"{sum(f.severity == severity for f in self.findings)} {severity}"
            for severity in ("severe", "warning", "info")
            if any(f.severity == severity for f in self.findings)
        ]
        if self.findings:
            found = f"{', '.join(counts)}: {self.findings[0].summary}"
        elif math.isfinite(self.loss):
            reason = self.why("gradient_norm") if self.gradient_norm is None else None
            found = "Nothing stands in the way." if reason is None else f"Only the loss could be measured: {reason}."
        else:
            found = (
                "Nothing could be measured, because the loss is not finite: look for NaN or infinity in the inputs, "
                "the targets and the weights."
            )
        sharpness = "" if self.sharpness is None else f"Sharpness {self.sharpness.value:.3g}; "
        spent = f"{self.spent:.0f} gradient evaluation{'' if round(self.spent) == 1 else 's'}"
        return f"{found} {sharpness}loss {self.loss:.4g}; {spent}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become None."""
        from cyclewise.landscape.measurements import as_json

        values = {name: as_json(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"record": "Diagnosis", "version": _VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Diagnosis":
        """Return the record that :meth:`to_dict` described.

        Raises:
            ArgumentError: the values describe no diagnosis of this version.
        """
        from cyclewise.landscape.measurements import from_json
        from cyclewise.landscape.unavailable import Unavailable

        with reading_record(values, "Diagnosis", _VERSION):
            fields = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
            fields["loss"] = math.nan if fields["loss"] is None else fields["loss"]
            fields["unavailable"] = {name: Unavailable[reason] for name, reason in fields["unavailable"].items()}
            fields["findings"] = tuple(Finding.from_dict(finding) for finding in fields["findings"])
            for name, record in _records().items():
                if isinstance(fields[name], list):
                    fields[name] = tuple(from_json(record, value) for value in fields[name])
                elif fields[name] is not None:
                    fields[name] = from_json(record, fields[name])
            return cls(**fields)

    def section(self) -> Section:
        """Return this record's part of a report: the findings in words, then pictures and numbers."""
        from cyclewise.landscape.pictures import section

        return section(self)

    def plot(self) -> "Figure":
        """Draw the pictures of the landscape, as one matplotlib figure."""
        from cyclewise.drawing.figure import draw
        from cyclewise.landscape.pictures import charts

        return draw(charts(self))

    def _repr_html_(self) -> str:
        from cyclewise.drawing.html import fragment

        return fragment(self.section())


def _records() -> dict[str, type]:
    # Imported here, so that importing cyclewise does not bring in all that measures.
    from cyclewise.landscape.cliffs import Descent
    from cyclewise.landscape.density import Density
    from cyclewise.landscape.flow import LayerFlow
    from cyclewise.landscape.journey import Journey
    from cyclewise.landscape.measurements import Eigenvalue, Estimate, Inputs, Profile, Signal, Slice
    from cyclewise.landscape.noise import LayerNoise
    from cyclewise.landscape.recurrence import Recurrence

    return {
        "sharpness": Eigenvalue,
        "lambda_min": Eigenvalue,
        "trace": Estimate,
        "taylor": Descent,
        "own_step": Descent,
        "signal": Signal,
        "density": Density,
        "plane": Slice,
        "journey": Journey,
        "profiles": Profile,
        "layers": LayerFlow,
        "inputs": Inputs,
        "recurrences": Recurrence,
        "layer_noises": LayerNoise,
    }
