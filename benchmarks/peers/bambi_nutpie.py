"""Bambi with nutpie: python bambi_nutpie.py data.csv formula group -> seconds (compiling included) and least ESS."""

import json
import sys
import time
import warnings

import arviz as az
import bambi
import nutpie  # noqa: F401
import pandas as pd

warnings.simplefilter("ignore")
path, formula, group = sys.argv[1:]
data = pd.read_csv(path, dtype={group: str})
start = time.perf_counter()
model = bambi.Model(formula, data)
tree = model.fit(draws=1000, tune=1000, chains=4, inference_method="nutpie", random_seed=1, progressbar=False)
seconds = time.perf_counter() - start
ess = az.ess(tree)
values = ess.to_dataset() if hasattr(ess, "to_dataset") else ess
print(json.dumps({"seconds": seconds, "ess": min(float(v.min()) for v in values.data_vars.values())}))
