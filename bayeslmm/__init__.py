"""Linear mixed models for repeated measurements, read two ways: a marginal model by REML, a hierarchical one by PyMC.

The names below are the public interface; each is loaded when it is first used, and PyMC only by what samples.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    # the model and its data
    "LMM": "model",
    "load_dataset": "datasets",
    "dataset_names": "datasets",
    "describe_dataset": "datasets:describe",
    # residual structures
    "Independent": "covariance",
    "CompoundSymmetry": "covariance",
    "Unstructured": "covariance",
    "AR1": "covariance",
    "Toeplitz": "covariance",
    "Antedependence": "covariance",
    "Exponential": "covariance",
    "Gaussian": "covariance",
    "Matern32": "covariance",
    "Matern52": "covariance",
    "Spherical": "covariance",
    "TimeCorrelation": "covariance",
    "Correlation": "covariance",
    # several models
    "compare_models": "several",
    "lrt": "marginal.lrt",
    # both readings side by side
    "compare": "comparison",
    "Comparison": "comparison",
    "write_report": "report",
    "explained_variance": "explained",
    # two stages and the variogram
    "two_stage": "twostage",
    "TwoStage": "twostage",
    "variogram": "semivariogram",
    "Variogram": "semivariogram",
    # pictures of one fit
    "plot_predictions": "prediction_plots",
    "plot_ols_to_eblup": "prediction_plots",
    "plot_random_effects": "diagnostic_plots",
    "plot_variogram": "diagnostic_plots",
    "plot_residuals": "diagnostic_plots",
    "plot_influence": "diagnostic_plots",
    # the posterior: priors, model comparison
    "default_priors": "hierarchical",
    "Normal": "hierarchical",
    "StudentT": "hierarchical",
    "HalfT": "hierarchical",
    "HalfNormal": "hierarchical",
    "HalfCauchy": "hierarchical",
    "Exp": "hierarchical",
    "PC": "hierarchical",
    "LogNormal": "hierarchical",
    "Gamma": "hierarchical",
    "InverseGamma": "hierarchical",
    "LKJ": "hierarchical",
    "Uniform": "hierarchical",
    "Flat": "hierarchical",
    "loo": "hierarchical.loo",
    "posterior_predict": "hierarchical.predict",
    "bayes_factor": "hierarchical.evidence",
    "random_effect_draws": "hierarchical.recover",
    "random_effect_chunks": "hierarchical.recover",
    "random_effect_summary": "hierarchical.recover",
    "sbc": "hierarchical.calibration",
    # errors
    "BayesLMMError": "errors",
    "FormulaError": "errors",
    "DataError": "errors",
    "DesignError": "errors",
    "CovarianceError": "errors",
    "InferenceError": "errors",
    "SamplingError": "errors",
    "DataNote": "errors",
    "ConvergenceNote": "errors",
}

__all__ = [*sorted(_WHERE), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bayeslmm' has no attribute {name!r}; it offers {', '.join(__all__)}")
    module, _, other = _WHERE[name].partition(":")
    value = getattr(import_module(f".{module}", __name__), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
