"""The loss as a function of the parameters, measured on the user's own model: curvature, its limits, its spectrum."""

__all__: list[str] = []
