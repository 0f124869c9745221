# REML and ML references of models that lme4 can write: tests/oracle/lme4_models.json.
#
#   Rscript tests/oracle/lme4_models.R        (from the root of the repository)
#
# Every optimum is found with the dense likelihood of common.R; lme4's own deviance function is evaluated at that
# optimum and must agree to 1e-8.

source("tests/oracle/common.R")
suppressPackageStartupMessages(library(lme4))

design <- function(formula, data) model.matrix(formula, data)

# The same model in lme4, its deviance taken at our optimum: theta are the columns of the relative Cholesky factors.
agrees_with_lme4 <- function(result, formula, data, order = NULL, diagonal = FALSE, ...) {
  for (method in c("reml", "ml")) {
    fit <- result[[method]]
    deviance <- do.call(lmer, list(formula, data, REML = method == "reml", devFunOnly = TRUE, ...))
    factors <- lapply(unname(fit$G), function(G) {
      L <- t(chol(G$values)) / fit$parameters$sigma
      if (diagonal) diag(L) else L[lower.tri(L, diag = TRUE)]
    })
    if (!is.null(order)) factors <- factors[order]
    gap <- abs(-deviance(unlist(factors)) / 2 - fit$loglik)
    if (gap > 1e-8) stop(sprintf("lme4's deviance differs by %.1e", gap))
  }
  result
}

results <- list()
add <- function(name, result) results[[name]] <<- result

# ---- sleepstudy ----------------------------------------------------------------------------------------------------

sleep <- dataset("sleepstudy")
X <- design(~ Days, sleep)
slope <- function(structure = "unstructured", Z = X) term("Subject", sleep$Subject, Z, rep(10, ncol(Z)), structure)
sleep_model <- function(terms, residual = list(component(common_scale(30))), offset = 0)
  lmm(sleep$Reaction, X, terms, residual, sleep$Subject, offset)

add("sleepstudy_slope", agrees_with_lme4(
  entry("sleepstudy", "Reaction ~ Days + (Days | Subject)", sleep_model(list(slope()))),
  Reaction ~ Days + (Days | Subject), sleep))
add("sleepstudy_uncorrelated", agrees_with_lme4(
  entry("sleepstudy", "Reaction ~ Days + (Days || Subject)", sleep_model(list(slope("diagonal")))),
  Reaction ~ Days + (Days || Subject), sleep, diagonal = TRUE))
add("sleepstudy_intercept", agrees_with_lme4(
  entry("sleepstudy", "Reaction ~ Days + (1 | Subject)", sleep_model(list(slope(Z = X[, 1, drop = FALSE])))),
  Reaction ~ Days + (1 | Subject), sleep))
add("sleepstudy_slope_only", agrees_with_lme4(
  entry("sleepstudy", "Reaction ~ Days + (0 + Days | Subject)", sleep_model(list(slope(Z = X[, 2, drop = FALSE])))),
  Reaction ~ Days + (0 + Days | Subject), sleep))

weights <- 1 + (seq_len(nrow(sleep)) * 7) %% 5 / 2
add("sleepstudy_weights", agrees_with_lme4(
  entry("sleepstudy", "Reaction ~ Days + (Days | Subject)",
        sleep_model(list(slope()), list(component(weighted_scale(30, weights)))), extra = list(weights = weights)),
  Reaction ~ Days + (Days | Subject), sleep, weights = weights))
add("sleepstudy_offset", agrees_with_lme4(
  entry("sleepstudy", "Reaction ~ Days + offset(10 * sqrt(Days)) + (Days | Subject)",
        sleep_model(list(slope()), offset = 10 * sqrt(sleep$Days))),
  Reaction ~ Days + offset(10 * sqrt(Days)) + (Days | Subject), sleep))

# ---- orthodont -----------------------------------------------------------------------------------------------------

ortho <- dataset("orthodont")
X_ortho <- design(~ age * Sex, ortho)
ortho_model <- function(Z, start) lmm(ortho$distance, X_ortho, list(term("Subject", ortho$Subject, Z, start)),
                                      list(component(common_scale(1.5))), ortho$Subject)
add("orthodont_intercept", agrees_with_lme4(
  entry("orthodont", "distance ~ age * Sex + (1 | Subject)", ortho_model(design(~ 1, ortho), 2)),
  distance ~ age * Sex + (1 | Subject), ortho))
add("orthodont_slope", agrees_with_lme4(
  entry("orthodont", "distance ~ age * Sex + (age | Subject)", ortho_model(design(~ age, ortho), c(2, 0.2))),
  distance ~ age * Sex + (age | Subject), ortho))

# ---- one-way, nested and crossed -----------------------------------------------------------------------------------

dye <- dataset("dyestuff")
one <- function(data) design(~ 1, data)
add("dyestuff", agrees_with_lme4(
  entry("dyestuff", "Yield ~ 1 + (1 | Batch)",
        lmm(dye$Yield, one(dye), list(term("Batch", dye$Batch, one(dye), 40)), list(component(common_scale(50))), dye$Batch)),
  Yield ~ 1 + (1 | Batch), dye))

paste_data <- dataset("pastes")
nested <- with(paste_data, factor(paste(batch, cask, sep = ":"), levels = unique(paste(batch, cask, sep = ":"))))
pastes_model <- lmm(paste_data$strength, one(paste_data), list(
  term("batch", paste_data$batch, one(paste_data), 1.3), term("batch:cask", nested, one(paste_data), 2.9)),
  list(component(common_scale(0.8))), paste_data$batch)
add("pastes", agrees_with_lme4(entry("pastes", "strength ~ 1 + (1 | batch/cask)", pastes_model),
  strength ~ 1 + (1 | batch/cask), paste_data, order = 2:1))   # lme4 sorts terms by their number of levels

pen <- dataset("penicillin")
add("penicillin", agrees_with_lme4(
  entry("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)",
        lmm(pen$diameter, one(pen), list(term("plate", pen$plate, one(pen), 0.8), term("sample", pen$sample, one(pen), 1.9)),
            list(component(common_scale(0.5))), rep(1, nrow(pen)))),
  diameter ~ 1 + (1 | plate) + (1 | sample), pen))

mach <- dataset("machines")
X_mach <- design(~ Machine, mach)
cell <- with(mach, factor(paste(Worker, Machine, sep = ":"), levels = unique(paste(Worker, Machine, sep = ":"))))
mach_model <- function(terms) lmm(mach$score, X_mach, terms, list(component(common_scale(1))), mach$Worker)
add("machines_interaction", agrees_with_lme4(
  entry("machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)",
        mach_model(list(term("Worker", mach$Worker, one(mach), 4), term("Worker:Machine", cell, one(mach), 3)))),
  score ~ Machine + (1 | Worker) + (1 | Worker:Machine), mach, order = 2:1))
add("machines_by_machine", agrees_with_lme4(
  entry("machines", "score ~ Machine + (0 + Machine | Worker)",
        mach_model(list(term("Worker", mach$Worker, design(~ 0 + Machine, mach), c(4, 8, 4))))),
  score ~ Machine + (0 + Machine | Worker), mach))
add("machines_factor_slopes", agrees_with_lme4(
  entry("machines", "score ~ Machine + (Machine | Worker)",
        mach_model(list(term("Worker", mach$Worker, X_mach, c(4, 6, 3))))),
  score ~ Machine + (Machine | Worker), mach))

boys <- dataset("oxboys")
add("oxboys", agrees_with_lme4(
  entry("oxboys", "height ~ age + (age | Subject)",
        lmm(boys$height, design(~ age, boys), list(term("Subject", boys$Subject, design(~ age, boys), c(8, 1.7))),
            list(component(common_scale(0.7))), boys$Subject)),
  height ~ age + (age | Subject), boys))

# ---- a variance of exactly zero: the optimum is ordinary least squares, the score of the variance is negative there ---

zero <- as.data.frame(lme4::Dyestuff2)
zero$Batch <- as.character(zero$Batch)
write.csv(zero, "tests/oracle/dyestuff2.csv", row.names = FALSE)
at_zero <- function(reml) {
  n <- nrow(zero)
  y <- zero$Yield
  rss <- sum((y - mean(y))^2)
  df <- n - reml
  variance <- rss / df
  loglik <- function(b) {   # b: variance between batches
    V <- variance * diag(n) + b * outer(zero$Batch, zero$Batch, "==")
    S <- solve(V)
    r <- y - sum(S %*% y) / sum(S)
    -0.5 * (determinant(V)$modulus + reml * log(sum(S)) + sum(r * (S %*% r)) + df * log(2 * pi))
  }
  list(loglik = as.numeric(loglik(0)), beta = I(mean(y)), se = I(sqrt(variance / n)), vcov = matrix(variance / n),
       parameters = list("sd_Batch[Intercept]" = 0, sigma = sqrt(variance)),
       G = list(Batch = list(effects = I("Intercept"), values = matrix(0))),
       w = list(Batch = list(levels = I(unique(zero$Batch)), effects = I("Intercept"), values = matrix(0, 6, 1))),
       convergence = list(boundary = "variance of Batch is 0", score_of_that_variance = grad(function(b) as.numeric(loglik(b)), 0)))
}
reml <- at_zero(TRUE)
ml <- at_zero(FALSE)
stopifnot(reml$convergence$score_of_that_variance < 0, ml$convergence$score_of_that_variance < 0)
stopifnot(abs(-lmer(Yield ~ 1 + (1 | Batch), zero, devFunOnly = TRUE)(0) / 2 - reml$loglik) < 1e-9)
cat(sprintf("%-12s %-58s %-42s %15.9f %15.9f\n", "dyestuff2", "Yield ~ 1 + (1 | Batch)", "", reml$loglik, ml$loglik))
add("dyestuff2", list(data = "dyestuff2.csv", formula = "Yield ~ 1 + (1 | Batch)", n = nrow(zero), p = 1,
                      coefficients = I("Intercept"), loglik_reml = reml$loglik, loglik_ml = ml$loglik, reml = reml, ml = ml))

# ---- anchors ---------------------------------------------------------------------------------------------------------

s <- results$sleepstudy_slope
expect_anchor("sleepstudy slope, -2 REML", -2 * s$loglik_reml, 1743.628271959, 2e-9)
expect_anchor("sleepstudy slope, -2 ML", -2 * s$loglik_ml, 1751.939344464, 2e-9)
G <- s$reml$G$Subject$values
expect_anchor("sleepstudy G11", G[1, 1], 612.08993, 1e-5)
expect_anchor("sleepstudy G12", G[1, 2], 9.60434, 1e-5)
expect_anchor("sleepstudy G22", G[2, 2], 35.07166, 5e-6)
expect_anchor("sleepstudy sigma^2", s$reml$parameters$sigma^2, 654.94103, 5e-6)
expect_anchor("sleepstudy SE of the intercept", s$reml$se[1], 6.82455653207, 1e-9)
expect_anchor("sleepstudy SE of Days", s$reml$se[2], 1.54578889629, 1e-9)
expect_anchor("sleepstudy intercept only, REML", results$sleepstudy_intercept$loglik_reml, -893.2325427, 1e-7)
o <- results$orthodont_intercept
expect_anchor("orthodont intercept, -2 REML", -2 * o$loglik_reml, 433.757249201, 2e-9)
o <- results$orthodont_slope
expect_anchor("orthodont slope, -2 REML", -2 * o$loglik_reml, 432.5816615, 1e-7)
for (k in 1:4) expect_anchor(paste("orthodont slope, SE", k), o$reml$se[k], c(1.0185319, 0.0859995, 1.5957329, 0.1347353)[k], 1e-7)
expect_anchor("dyestuff, REML", results$dyestuff$loglik_reml, -159.8271384, 1e-7)

save_json(c(list(about = list(
  made_by = "tests/oracle/lme4_models.R", versions = versions(c("lme4", "numDeriv", "jsonlite")),
  method = paste("Dense likelihood maximised by nlminb, finished by Newton steps with Richardson derivatives in log standard",
                 "deviations and free correlation parameters; lme4's deviance function evaluated at the optimum agrees to 1e-8."),
  loglik = "-1/2 [log|V| + log|X'V^-1 X| + r'V^-1 r + (n - p) log 2 pi]; ML without log|X'V^-1 X| and with n",
  w = "EBLUPs G Z' V^-1 (y - X beta); se and vcov are (X'V^-1 X)^-1 at each method's own optimum")), results),
  "tests/oracle/lme4_models.json")
