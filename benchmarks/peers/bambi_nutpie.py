"""Bambi with nutpie: python bambi_nutpie.py data.csv formula group.

Prints seconds from the table to the draws (compiling included), those of compiling, and the least ESS.
"""

import json
import sys
import time
import warnings

import arviz as az
import bambi
import nutpie
import pandas as pd

warnings.simplefilter("ignore")
path, formula, group = sys.argv[1:]
data = pd.read_csv(path, dtype={group: str})
compiling, compile_model = 0.0, nutpie.compile_pymc_model


def timed(*args, **options):
    """What Bambi calls, with the time that it takes."""
    global compiling
    began = time.perf_counter()
    compiled = compile_model(*args, **options)
    compiling += time.perf_counter() - began
    return compiled


nutpie.compile_pymc_model = timed
start = time.perf_counter()
model = bambi.Model(formula, data)
tree = model.fit(draws=1000, tune=1000, chains=4, inference_method="nutpie", random_seed=1, progressbar=False)
seconds = time.perf_counter() - start
ess = az.ess(tree)
values = ess.to_dataset() if hasattr(ess, "to_dataset") else ess
print(json.dumps({"seconds": seconds, "compiling": compiling, "ess": min(float(v.min()) for v in values.data_vars.values())}))
