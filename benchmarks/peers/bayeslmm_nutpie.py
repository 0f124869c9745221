"""to_pymc(parametrization) under nutpie: python bayeslmm_nutpie.py data.csv formula group parametrization.

Prints seconds from the table to the draws (w recovered), those of compiling and of NUTS among them, and the least ESS.
"""

import json
import sys
import time
import warnings

import arviz as az
import nutpie
import pandas as pd
import pytensor.link.numba.dispatch  # noqa: F401  what a program imports when it compiles

import bayeslmm as bl
import bayeslmm.hierarchical.builder

warnings.simplefilter("ignore")
path, formula, group, parametrization = sys.argv[1:]
data = pd.read_csv(path, dtype={group: str})
start = time.perf_counter()
model = bl.LMM(formula, data)
program = model.to_pymc(parametrization)
built = time.perf_counter()
compiled = nutpie.compile_pymc_model(program)
compiling = time.perf_counter() - built
began = time.perf_counter()
tree = nutpie.sample(compiled, draws=1000, tune=1000, chains=4, seed=1, progress_bar=False)
sampling = time.perf_counter() - began
posterior = tree["posterior"].to_dataset()
if parametrization == "marginal":
    posterior = posterior.merge(bl.random_effect_draws(model, tree, random_seed=1))
seconds = time.perf_counter() - start
ess = az.ess(posterior[[name for name in posterior.data_vars if not name.startswith(("chol_", "z_"))]])
least = min(float(v.min()) for v in ess.data_vars.values())
print(json.dumps({"seconds": seconds, "compiling": compiling, "sampling": sampling, "ess": least}))
