# rstanarm: Rscript rstanarm.R data.csv formula group -> seconds and least ESS (compiled beforehand by its authors)
suppressMessages(library(rstanarm))
a <- commandArgs(TRUE)
data <- read.csv(a[1])
data[[a[3]]] <- factor(data[[a[3]]])
start <- proc.time()["elapsed"]
fit <- suppressWarnings(stan_lmer(as.formula(a[2]), data, chains = 4, iter = 2000, cores = 2, seed = 1, refresh = 0))
seconds <- proc.time()["elapsed"] - start
s <- rstan::summary(fit$stanfit)$summary
keep <- !grepl("mean_PPD|log-posterior|_NEW_", rownames(s))
cat(sprintf('{"seconds": %.3f, "ess": %.1f}\n', seconds, min(s[keep, "n_eff"])))
