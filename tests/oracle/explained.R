# R² and intraclass correlations, from the root of the repository: Rscript tests/oracle/explained.R
# lme4 at a tolerance far below its default; formulas of Nakagawa and Schielzeth (2013) and Johnson (2014), and
# performance::r2_nakagawa where that package is installed (column "performance").
suppressMessages({library(lme4); library(jsonlite)})
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12, maxfun = 1e5), calc.derivs = FALSE,
                       check.conv.singular = "ignore")
orthodont <- read.csv("bayeslmm/datasets/orthodont.csv")
models <- list(
  list("sleepstudy", "Reaction ~ Days + (Days | Subject)", sleepstudy),
  list("sleepstudy", "Reaction ~ Days + (Days || Subject)", sleepstudy),
  list("pastes", "strength ~ 1 + (1 | batch/cask)", Pastes),
  list("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", Penicillin),
  list("orthodont", "distance ~ age * Sex + (age | Subject)", orthodont)
)
out <- lapply(models, function(m) {
  fit <- suppressWarnings(lmer(as.formula(m[[2]]), m[[3]], control = control))
  fixed <- var(as.vector(model.matrix(fit) %*% fixef(fit)))
  error <- sigma(fit)^2
  Z <- getME(fit, "mmList")
  V <- VarCorr(fit)
  own <- mapply(function(z, G) mean(rowSums((as.matrix(z) %*% as.matrix(G)) * as.matrix(z))), Z, V)
  names(own) <- names(V)
  group <- tapply(own, sub("\\.[0-9]+$", "", names(own)), sum)
  total <- fixed + sum(group) + error
  p <- if (requireNamespace("performance", quietly = TRUE)) suppressWarnings(performance::r2_nakagawa(fit)) else NA
  list(data = m[[1]], formula = m[[2]], r2_marginal = fixed / total, r2_conditional = (fixed + sum(group)) / total,
       icc = as.list(group / (sum(group) + error)),
       performance = if (length(p) > 1) c(unname(p$R2_marginal), unname(p$R2_conditional)) else NA)
})
writeLines(toJSON(out, digits = 12, auto_unbox = TRUE, pretty = TRUE), "tests/oracle/explained.json")
