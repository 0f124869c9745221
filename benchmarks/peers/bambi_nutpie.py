"""Bambi with nutpie: python bambi_nutpie.py data.csv formula group.

Prints seconds from the table to the draws, those of compiling and of NUTS among them, and the least ESS.
"""

import json
import sys
import time
import warnings

import arviz as az
import bambi
import nutpie
import pandas as pd
import pytensor.link.numba.dispatch  # noqa: F401  what a program imports when it compiles

warnings.simplefilter("ignore")
path, formula, group = sys.argv[1:]
data = pd.read_csv(path, dtype={group: str})
spent = {}


def timed(name):
    """What Bambi calls in nutpie, with the time that it takes."""
    inner = getattr(nutpie, name)

    def outer(*args, **options):
        began = time.perf_counter()
        found = inner(*args, **options)
        spent[name] = time.perf_counter() - began
        return found

    setattr(nutpie, name, outer)


timed("compile_pymc_model")
timed("sample")
start = time.perf_counter()
model = bambi.Model(formula, data)
tree = model.fit(draws=1000, tune=1000, chains=4, inference_method="nutpie", random_seed=1, progressbar=False)
seconds = time.perf_counter() - start
ess = az.ess(tree)
values = ess.to_dataset() if hasattr(ess, "to_dataset") else ess
least = min(float(v.min()) for v in values.data_vars.values())
times = {"seconds": seconds, "compiling": spent["compile_pymc_model"], "sampling": spent["sample"]}
print(json.dumps({**times, "ess": least}))
