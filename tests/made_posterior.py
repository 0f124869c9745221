"""Random numbers in the layout of a posterior, around a fit: for tests of what is done with draws."""

import numpy as np
import xarray as xr


def made_posterior(fit, *, chains=2, draws=100, seed=1, sampler="nuts", divergences=0):
    """A DataTree as `model.sample()` returns it, its draws scattered around the estimates of a fit."""
    rng = np.random.default_rng(seed)
    model = fit.model
    sample = ("chain", "draw")

    def noise(*shape):
        return rng.normal(size=(chains, draws, *shape))

    root = np.linalg.cholesky(fit.cov_beta.values)
    data = {"beta": ((*sample, "coef"), fit.beta.values + noise(len(fit.beta)) @ root.T)}
    coords = {"chain": np.arange(chains), "draw": np.arange(draws), "coef": list(model.design.coefs)}
    at = 0
    for p in model.covariance.parameters:
        value = np.nan_to_num(fit.parameters.to_numpy()[at : at + len(p)])
        at += len(p)
        if p.role == "correlation":
            value = np.tanh(np.arctanh(np.clip(value, -0.9, 0.9)) + 0.2 * noise(len(p)))
        else:
            value = np.maximum(value, 0.1) * np.exp(0.2 * noise(len(p)))
        if p.labels is None:
            data[p.name] = (sample, value[..., 0])
        elif p.role == "correlation" and ", " in p.labels[0]:
            labels = list(dict.fromkeys(x for pair in p.labels for x in pair.split(", ")))
            matrix = np.broadcast_to(np.eye(len(labels)), (chains, draws, len(labels), len(labels))).copy()
            for k, pair in enumerate(p.labels):
                i, j = (labels.index(x) for x in pair.split(", "))
                matrix[..., i, j] = matrix[..., j, i] = value[..., k]
            dim = f"{p.name}_dim"
            data[p.name] = ((*sample, dim, f"{dim}_"), matrix)
            coords |= {dim: labels, f"{dim}_": labels}
        else:
            dim = f"{p.name}_dim"
            data[p.name] = ((*sample, dim), value)
            coords[dim] = list(p.labels)
    for term in model.design.terms:
        w = fit.w[term.group].values
        dim = f"effect_{term.group}"
        data[f"w_{term.group}"] = ((*sample, term.group, dim), w + (0.1 + w.std(axis=0)) * noise(*w.shape))
        coords |= {term.group: term.levels, dim: list(term.effects)}
    diverging = np.arange(chains * draws).reshape(chains, draws) < divergences
    stats = xr.Dataset({"diverging": (sample, diverging)}, coords={k: coords[k] for k in sample})
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(data, coords=coords), "sample_stats": stats})
    if sampler:
        tree.attrs["sampler"] = sampler
    return tree
