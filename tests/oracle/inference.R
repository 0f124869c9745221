# References for tests of fixed effects, sandwich estimators and exact tests of a variance: tests/oracle/inference.json.
#
#   Rscript tests/oracle/inference.R          (from the root of the repository)
#
# Fits by lme4 are rebuilt at an optimum polished by Newton steps on lme4's deviance (lmer with optimizer = NULL starts
# and stops there), since the packages below inherit every digit that the optimiser left out.

source("tests/oracle/common.R")
suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(pbkrtest)
  library(clubSandwich)
  library(nlme)
  library(RLRsim)
})

polished <- function(formula, data) {
  deviance <- do.call(lme4::lmer, list(formula, data, devFunOnly = TRUE))
  half <- function(theta) deviance(theta) / 2
  start <- do.call(lme4::lmer, list(formula, data))@theta
  start <- nlminb(start, half, lower = 1e-6, control = list(rel.tol = 1e-14))$par
  diagonal <- environment(deviance)$lower == 0
  found <- newton(half, start)
  if (found$gradient > 1e-6 || any(found$theta[diagonal] < 1e-4)) stop("not polished: ", deparse(formula))
  fit <- do.call(lme4::lmer, list(formula, data, start = list(theta = unname(found$theta)),
                                  control = lmerControl(optimizer = NULL, check.conv.grad = "ignore")))
  stopifnot(max(abs(getME(fit, "theta") - found$theta)) < 1e-12)
  fit
}

# The same model in the dense likelihood, for Satterthwaite's df from the full observed information.
dense_satterthwaite <- function(fit, block, rows_L) {
  names_of <- names(getME(fit, "cnms"))
  flist <- getME(fit, "flist")
  terms <- Map(function(name, Z) term(name, flist[[name]], as.matrix(Z), rep(sigma(fit), ncol(Z))), names_of, getME(fit, "mmList"))
  model <- lmm(getME(fit, "y"), getME(fit, "X"), unname(terms), list(component(common_scale(sigma(fit)))), block)
  found <- optimum(model, TRUE)
  stopifnot(abs(evaluate(model, found$theta, TRUE)$loglik - as.numeric(logLik(fit))) < 1e-8)
  H <- hessian(function(theta) -evaluate(model, theta, TRUE)$loglik, found$theta)
  apply(rows_L, 1, function(l) {
    variance <- function(theta) drop(l %*% evaluate(model, theta, TRUE)$vcov %*% l)
    g <- grad(variance, found$theta)
    2 * variance(found$theta)^2 / drop(g %*% solve(H, g))
  })
}

f_tests <- function(fit, ddf) {
  table <- as.data.frame(anova(fit, type = 3, ddf = ddf))
  contrasts <- show_tests(anova(fit, type = 3, ddf = ddf))
  setNames(lapply(rownames(table), function(name) {
    row <- table[name, ]
    list(L = unname(as.matrix(contrasts[[name]])), F = row[["F value"]], num_df = row[["NumDF"]], den_df = row[["DenDF"]],
         p = row[["Pr(>F)"]])
  }), rownames(table))
}

inference <- function(data, formula, table, block, extra = list()) {
  fit <- polished(as.formula(formula), table)
  tested <- as_lmerModLmerTest(fit)
  p <- length(fixef(fit))
  coefficients <- function(ddf) {
    s <- coef(summary(tested, ddf = ddf))
    list(estimate = I(unname(s[, "Estimate"])), se = I(unname(s[, "Std. Error"])), df = I(unname(s[, "df"])),
         t = I(unname(s[, "t value"])), p = I(unname(s[, "Pr(>|t|)"])))
  }
  sat <- coefficients("Satterthwaite")
  check <- dense_satterthwaite(fit, block, diag(p))
  cat(sprintf("%-10s %-52s REML %.9f, Satterthwaite df against dense %.1e\n", data, formula, as.numeric(logLik(fit)),
              max(abs(sat$df / check - 1))))
  sat$df_dense <- I(check)
  adjusted <- vcovAdj(fit)
  kr_tests <- f_tests(tested, "Kenward-Roger")
  kr_tests <- lapply(kr_tests, function(test) {
    full <- KRmodcomp(fit, test$L)$stats
    c(test, list(F_unscaled = full$FstatU, scaling = full$F.scaling, p_scaled = full$p.value, F_scaled = full$Fstat))
  })
  c(list(data = data, formula = formula), extra, list(
    coefficients = I(sub("^\\(Intercept\\)$", "Intercept", names(fixef(fit)))), loglik_reml = as.numeric(logLik(fit)),
    satterthwaite = c(sat, list(anova = f_tests(tested, "Satterthwaite"))),
    kenward_roger = c(coefficients("Kenward-Roger"), list(
      cov_beta = unname(as.matrix(vcov(fit))), cov_beta_adjusted = unname(as.matrix(adjusted)), anova = kr_tests))))
}

results <- list()
mach <- dataset("machines")
paste_data <- dataset("pastes")
ortho <- dataset("orthodont")
sleep <- dataset("sleepstudy")

dropped <- c(3, 4, 10, 17, 18, 19, 33, 48, 60, 61, 75, 76, 77, 90, 102)   # rows of orthodont, counted from 1
unbalanced <- droplevels(ortho[-dropped, ])
left_out <- list(dropped_rows_from_zero = dropped - 1)

results$machines_interaction <- inference("machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", mach, mach$Worker)
results$machines_by_machine <- inference("machines", "score ~ Machine + (0 + Machine | Worker)", mach, mach$Worker)
results$pastes <- inference("pastes", "strength ~ 1 + (1 | batch/cask)", paste_data, paste_data$batch)
results$orthodont_unbalanced_intercept <- inference("orthodont", "distance ~ age * Sex + (1 | Subject)", unbalanced,
                                                    unbalanced$Subject, left_out)
results$orthodont_unbalanced_slope <- inference("orthodont", "distance ~ age * Sex + (age | Subject)", unbalanced,
                                                unbalanced$Subject, left_out)
results$sleepstudy <- inference("sleepstudy", "Reaction ~ Days + (Days | Subject)", sleep, sleep$Subject)

# ---- sandwich ------------------------------------------------------------------------------------------------------

sandwich <- function(data, formula, fit, object, tested, cluster = NULL, extra = list(), loglik) {
  types <- c("CR0", "CR1", "CR1S", "CR1p", "CR2", "CR3")
  estimates <- setNames(lapply(types, function(type) {
    V <- if (is.null(cluster)) vcovCR(fit, type = type) else vcovCR(fit, cluster = cluster, type = type)
    t_test <- as.data.frame(coef_test(fit, vcov = V, test = "Satterthwaite"))
    f_test <- as.data.frame(Wald_test(fit, constraints = constrain_zero(tested), vcov = V, test = "HTZ"))
    list(cov_beta = unname(as.matrix(V)), se = t_test$SE, t = t_test$tstat, df = t_test$df_Satt, p = t_test$p_Satt,
         wald_htz = list(tested_from_zero = I(tested - 1), F = f_test$Fstat, num_df = f_test$df_num, den_df = f_test$df_denom,
                         p = f_test$p_val))
  }), types)
  beta <- if (is(fit, "merMod")) fixef(fit) else if (inherits(fit, "lme")) fixef(fit) else coef(fit)
  cat(sprintf("sandwich %-10s %-42s %-50s REML %.9f\n", data, formula, object, as.numeric(logLik(fit))))
  c(list(data = data, formula = formula), extra, list(object = object, loglik_reml = as.numeric(logLik(fit)),
    beta = unname(beta), cluster = "Subject", estimates = estimates))
}
lme4_object <- "lme4::lmer at the polished optimum"
results$sandwich <- list(
  sleepstudy = sandwich("sleepstudy", "Reaction ~ Days + (Days | Subject)", polished(Reaction ~ Days + (Days | Subject), sleep),
                        lme4_object, 2),
  sleepstudy_intercept = sandwich("sleepstudy", "Reaction ~ Days + (1 | Subject)",
                                  polished(Reaction ~ Days + (1 | Subject), sleep), lme4_object, 2),
  orthodont = sandwich("orthodont", "distance ~ age * Sex + (age | Subject)",
                       polished(distance ~ age * Sex + (age | Subject), ortho), lme4_object, c(2, 4)),
  orthodont_unbalanced = sandwich("orthodont", "distance ~ age * Sex + (age | Subject)",
                                  polished(distance ~ age * Sex + (age | Subject), unbalanced), lme4_object, c(2, 4), extra = left_out),
  orthodont_ar1 = sandwich("orthodont", "distance ~ age * Sex",
                           gls(distance ~ age * Sex, ortho, corAR1(form = ~ 1 | Subject),
                               control = glsControl(msMaxIter = 1000, msTol = 1e-12, tolerance = 1e-12)),
                           "nlme::gls with corAR1(form = ~ 1 | Subject)", c(2, 4), extra = list(residual = 'AR1("age", subject="Subject")'))
)

# ---- exact restricted likelihood ratio tests of one variance ---------------------------------------------------------

nsim <- 1e6
exact <- function(data, tested, alone, full, null, table) {
  fits <- lapply(list(alone, full, null), function(f) if (!is.null(f)) polished(f, table))
  seed <- 20240601
  test <- if (is.null(null)) exactRLRT(fits[[1]], nsim = nsim, seed = seed)
          else exactRLRT(m = fits[[1]], mA = fits[[2]], m0 = fits[[3]], nsim = nsim, seed = seed)
  p <- unname(test$p.value)
  cat(sprintf("exactRLRT %-10s %-40s statistic %.6f p %.6f\n", data, tested, test$statistic, p))
  text <- function(f) if (!is.null(f)) paste(deparse(f, width.cutoff = 200), collapse = "")
  list(data = data, tested = tested, full = text(if (is.null(full)) alone else full), null = text(null),
       statistic = unname(test$statistic), p = p, nsim = nsim, seed = seed, standard_error = sqrt(p * (1 - p) / nsim))
}
# Beside a second component RLRsim simulates as if that component were known. Where the design is balanced, the restricted
# likelihood needs mean squares only, l = -1/2 sum df (log v + MS / v) with v1 >= v2 >= v3, so the parametric bootstrap from
# the fitted null (v1 = v2) is a simulation of three chi-squares.
balanced_bootstrap <- function(df, ms) {
  maximum <- function(m, weight) {   # rows of m: one draw; antitonic regression by the min-max formula
    k <- length(weight)
    average <- function(i, j) m[, i:j, drop = FALSE] %*% weight[i:j] / sum(weight[i:j])
    v <- sapply(seq_len(k), function(i) {
      over_s <- lapply(seq_len(i), function(s) do.call(pmax, lapply(i:k, function(t) drop(average(s, t)))))
      do.call(pmin, over_s)
    })
    v <- matrix(v, ncol = k)
    list(v = v, value = -0.5 * drop((log(v) + m / v) %*% weight))
  }
  statistic <- function(m) {
    pooled <- cbind((m[, 1] * df[1] + m[, 2] * df[2]) / (df[1] + df[2]), m[, 3])
    null <- maximum(pooled, c(df[1] + df[2], df[3]))
    within <- -0.5 * (df[1] * m[, 1] + df[2] * m[, 2]) / null$v[, 1]
    l0 <- within - 0.5 * (df[1] + df[2]) * log(null$v[, 1]) - 0.5 * df[3] * (log(null$v[, 2]) + m[, 3] / null$v[, 2])
    list(value = pmax(0, 2 * (maximum(m, df)$value - l0)), v = null$v)
  }
  observed <- statistic(matrix(ms, 1))
  set.seed(20240602)
  draws <- sapply(1:3, function(k) rchisq(nsim, df[k]) / df[k] * observed$v[1, c(1, 1, 2)[k]])
  p <- mean(statistic(draws)$value >= observed$value - 1e-12)
  list(statistic = observed$value, p = p, nsim = nsim, standard_error = sqrt(p * (1 - p) / nsim))
}
mean_squares <- function(formula, data, terms) {
  table <- anova(lm(formula, data))
  list(df = table[terms, "Df"], ms = table[terms, "Mean Sq"])
}

set.seed(5)
like <- expand.grid(Replicate = 1:3, Machine = c("A", "B", "C"), Worker = as.character(1:6), stringsAsFactors = FALSE)
like$score <- round(c(A = 52, B = 60, C = 66)[like$Machine] + rnorm(6, 0, 2)[as.integer(like$Worker)] + rnorm(54, 0, 4), 1)
write.csv(like[c("Worker", "Machine", "score")], "tests/oracle/machines_like.csv", row.names = FALSE)
like <- oracle("machines_like.csv")

results$exact_rlrt <- list(
  about = "One tested variance alone: exact. Beside another component, RLRsim is approximate; parametric_bootstrap is not.",
  dyestuff = exact("dyestuff", "(1 | Batch)", Yield ~ 1 + (1 | Batch), NULL, NULL, dataset("dyestuff")),
  pastes_alone = exact("pastes", "(1 | batch)", strength ~ 1 + (1 | batch), NULL, NULL, paste_data),
  machines_like = exact("machines_like.csv", "(1 | Worker)", score ~ Machine + (1 | Worker), NULL, NULL, like),
  pastes_batch = c(
    exact("pastes", "(1 | batch) given (1 | batch:cask)", strength ~ 1 + (1 | batch),
          strength ~ 1 + (1 | batch) + (1 | batch:cask), strength ~ 1 + (1 | batch:cask), paste_data),
    list(parametric_bootstrap = with(mean_squares(strength ~ batch / cask, paste_data, c("batch", "batch:cask", "Residuals")),
                                     balanced_bootstrap(df, ms)))),
  machines_worker = c(
    exact("machines", "(1 | Worker) given (1 | Worker:Machine)", score ~ Machine + (1 | Worker),
          score ~ Machine + (1 | Worker) + (1 | Worker:Machine), score ~ Machine + (1 | Worker:Machine), mach),
    list(parametric_bootstrap = with(mean_squares(score ~ Machine * Worker, mach, c("Worker", "Machine:Worker", "Residuals")),
                                     balanced_bootstrap(df, ms)))),
  orthodont_slope = exact("orthodont", "(0 + age | Subject) given (1 | Subject)", distance ~ age * Sex + (0 + age | Subject),
                          distance ~ age * Sex + (1 | Subject) + (0 + age | Subject), distance ~ age * Sex + (1 | Subject), ortho)
)
for (name in c("pastes_batch", "machines_worker")) {
  test <- results$exact_rlrt[[name]]
  cat(sprintf("bootstrap %-20s statistic %.6f p %.6f\n", name, test$parametric_bootstrap$statistic, test$parametric_bootstrap$p))
  stopifnot(abs(test$statistic - test$parametric_bootstrap$statistic) < 1e-6)
}

# ---- fev: Kenward-Roger for residual covariances by visit, dense -----------------------------------------------------

# phi are the parameters in which the information and the second derivatives are taken; table(phi) is the 4 x 4 matrix.
fev <- oracle("fev.csv")
fev <- fev[!is.na(fev$FEV1), ]
position <- as.integer(fev$AVISIT)
blocks <- split(seq_len(nrow(fev)), factor(fev$USUBJID))

dense_kr <- function(X, table, phi, rows_L) {
  n_phi <- length(phi)
  p <- ncol(X)
  model <- lmm(fev$FEV1, X, list(), list(list(
    size = n_phi, start = phi, key = function(rows) position[rows],
    matrix = function(theta, rows) table(theta)[position[rows], position[rows], drop = FALSE],
    natural = function(theta) list())), fev$USUBJID)
  objective <- function(theta) -evaluate(model, theta, TRUE)$loglik
  found <- list(theta = phi)
  for (step in 1:3) {   # phi comes from a polished fit: a Newton step in these coordinates changes the last digits only
    H <- hessian(objective, found$theta)
    found$theta <- found$theta - solve(H, grad(objective, found$theta))
  }
  phi <- found$theta
  at <- evaluate(model, phi, TRUE)
  Phi <- at$vcov
  first <- array(jacobian(function(x) c(table(x)), phi), c(4, 4, n_phi))
  second <- array(0, c(4, 4, n_phi, n_phi))
  for (i in 1:4) for (j in 1:4) second[i, j, , ] <- hessian(function(x) table(x)[i, j], phi)
  P <- replicate(n_phi, matrix(0, p, p), simplify = FALSE)
  Q <- R <- array(0, c(p, p, n_phi, n_phi))
  trace <- matrix(0, n_phi, n_phi)
  meat <- matrix(0, p, p)
  residual <- fev$FEV1 - drop(X %*% at$beta)
  for (rows in blocks) {
    v <- position[rows]
    S <- solve(table(phi)[v, v])
    SX <- S %*% X[rows, , drop = FALSE]
    meat <- meat + tcrossprod(t(SX) %*% residual[rows])
    for (r in seq_len(n_phi)) {
      D_r <- matrix(first[v, v, r], length(v))
      P[[r]] <- P[[r]] - t(SX) %*% D_r %*% SX
      for (s in seq_len(n_phi)) {
        D_s <- matrix(first[v, v, s], length(v))
        Q[, , r, s] <- Q[, , r, s] + t(SX) %*% D_r %*% S %*% D_s %*% SX
        R[, , r, s] <- R[, , r, s] + t(SX) %*% matrix(second[v, v, r, s], length(v)) %*% SX
        trace[r, s] <- trace[r, s] + sum((S %*% D_r) * t(S %*% D_s))
      }
    }
  }
  expected <- matrix(0, n_phi, n_phi)
  for (r in seq_len(n_phi)) for (s in seq_len(n_phi))
    expected[r, s] <- (trace[r, s] - 2 * sum(Phi * Q[, , r, s]) + sum((Phi %*% P[[r]]) * t(Phi %*% P[[s]]))) / 2
  one <- function(information, with_second) {
    W <- solve(information)
    Lambda <- matrix(0, p, p)
    for (r in seq_len(n_phi)) for (s in seq_len(n_phi))
      Lambda <- Lambda + W[r, s] * (Q[, , r, s] - P[[r]] %*% Phi %*% P[[s]] - with_second * R[, , r, s] / 4)
    adjusted <- Phi + 2 * Phi %*% ((Lambda + t(Lambda)) / 2) %*% Phi
    df <- apply(rows_L, 1, function(l) {
      slope <- vapply(P, function(P_r) drop(-l %*% Phi %*% P_r %*% Phi %*% l), numeric(1))
      2 * drop(l %*% Phi %*% l)^2 / drop(slope %*% W %*% slope)
    })
    list(se = I(sqrt(diag(rows_L %*% adjusted %*% t(rows_L)))), df = I(df))
  }
  observed <- hessian(objective, phi)
  list(loglik_reml = at$loglik, L = rows_L, estimate = I(drop(rows_L %*% at$beta)),
       se_unadjusted = I(sqrt(diag(rows_L %*% Phi %*% t(rows_L)))),
       se_empirical = I(sqrt(diag(rows_L %*% Phi %*% meat %*% Phi %*% t(rows_L)))), phi = I(phi),
       observed = list(with_second_derivatives = one(observed, TRUE), linear = one(observed, FALSE)),
       expected = list(with_second_derivatives = one(expected, TRUE), linear = one(expected, FALSE)))
}

m <- 4
lower <- lower.tri(diag(m), diag = TRUE)
symmetric <- function(values) {
  V <- matrix(0, m, m)
  V[lower] <- values
  V + t(V) - diag(diag(V))
}
exchangeable <- function(rho) matrix(rho, m, m) + (1 - rho) * diag(m)
power_of <- function(rho) outer(1:m, 1:m, function(i, j) ifelse(i == j, 1, rho^abs(i - j)))
neighbours <- function(rho) outer(1:m, 1:m, Vectorize(function(i, j) if (i == j) 1 else prod(rho[min(i, j):(max(i, j) - 1)])))
band <- function(rho) toeplitz(c(1, rho))
common <- function(C) function(phi) phi[1] * C(phi[-1])
by_visit <- function(C) function(phi) outer(sqrt(phi[1:m]), sqrt(phi[1:m])) * C(phi[-(1:m)])
fitted <- fromJSON("tests/oracle/residual_models.json")
sas <- fromJSON("tests/oracle/sas_fev.json")$structures
V_of <- function(name) fitted[[name]]$reml$parameters
numbers <- function(name, from) unlist(V_of(name))[from]
variances <- function(name) unname(unlist(V_of(name))[1:m]^2)
rest <- function(name, k) unname(unlist(V_of(name))[-seq_len(k)])
us <- with(list(p = unlist(V_of("fev_us"))), {
  C <- diag(m)
  C[lower.tri(C)] <- p[-(1:m)]
  C <- C + t(C) - diag(m)
  C * outer(p[1:m], p[1:m])
})
X <- model.matrix(~ ARMCD, fev)
one_variance <- function(name) c(V_of(name)$sigma^2, rest(name, 1))
many_variances <- function(name) c(variances(name), rest(name, m))
structures <- list(
  us = list(symmetric, us[lower], "elements of the matrix"),
  ar1 = list(common(power_of), one_variance("fev_ar1"), "variance, correlation"),
  ar1h = list(by_visit(power_of), many_variances("fev_ar1h"), "variances, correlation"),
  cs = list(function(phi) phi[1] * exchangeable(0) + phi[2] * matrix(1, m, m),
            with(V_of("fev_cs"), sigma^2 * c(1 - rho, rho)), "residual variance, common covariance"),
  csh = list(by_visit(exchangeable), many_variances("fev_csh"), "variances, correlation"),
  toep = list(function(phi) toeplitz(phi), V_of("fev_toep")$sigma^2 * c(1, rest("fev_toep", 1)), "variance, covariances"),
  toeph = list(by_visit(band), many_variances("fev_toeph"), "variances, correlations"),
  ad = list(common(neighbours), one_variance("fev_ad"), "variance, correlations of neighbours"),
  adh = list(by_visit(neighbours), many_variances("fev_adh"), "variances, correlations of neighbours"))
results$fev_kenward_roger <- list(about = paste(
  "FEV1 ~ ARMCD on fev.csv, treatment contrast. Kenward-Roger by a dense computation of this project in R, in the coordinates named",
  "with each structure, with the observed or the expected information, with or without (linear) second derivatives; Satterthwaite's",
  "df with the same information is the df given here, its standard error is se_unadjusted; se_empirical is CR0."))
for (name in names(structures)) {
  kr <- dense_kr(X, structures[[name]][[1]], unname(structures[[name]][[2]]), matrix(c(0, 1), 1))
  kr$coordinates <- structures[[name]][[3]]
  stopifnot(abs(kr$loglik_reml - fitted[[paste0("fev_", name)]]$loglik_reml) < 1e-8)
  cat(sprintf("fev %-6s estimate %.9f, CR0 %.9f, observed: KR se %.9f, linear %.9f, df %.7f; expected: se %.9f, linear %.9f, df %.7f\n", name, kr$estimate, kr$se_empirical,
      kr$observed$with_second_derivatives$se, kr$observed$linear$se, kr$observed$linear$df,
      kr$expected$with_second_derivatives$se, kr$expected$linear$se, kr$expected$linear$df))
  if (!is.null(sas[[name]])) cat(sprintf("   SAS     estimate %.9f, CR0 %.9f,           KR se %.9f, linear %.9f, df %.7f\n", sas[[name]]$kenward_roger$estimate, sas[[name]]$empirical$se,
      sas[[name]]$kenward_roger$se, sas[[name]]$kenward_roger_linear$se, sas[[name]]$kenward_roger$df))
  results$fev_kenward_roger[[name]] <- kr
}

# The treatment difference at each visit under the unstructured covariance.
X <- model.matrix(~ ARMCD * AVISIT, fev)
L <- cbind(0, 1, 0, 0, 0, rbind(0, diag(3)))
dense <- lmm(fev$FEV1, X, list(), list(component(by_scale(9, fev$AVISIT), free_correlation(position, levels(fev$AVISIT)))), fev$USUBJID)
best <- reference(dense, TRUE)
by_visit_fit <- gls(FEV1 ~ ARMCD * AVISIT, transform(fev, position = position), corSymm(form = ~ position | USUBJID),
                    varIdent(form = ~ 1 | AVISIT), control = glsControl(msMaxIter = 1000, msTol = 1e-10, tolerance = 1e-10))
cat(sprintf("fev ARMCD * AVISIT, us: REML %.9f, nlme %.9f\n", best$loglik, as.numeric(logLik(by_visit_fit))))
results$fev_by_visit <- c(list(about = paste("FEV1 ~ ARMCD * AVISIT, Unstructured(\"AVISIT\", subject=\"USUBJID\"): treatment difference TRT - PBO",
                                             "at VIS1 to VIS4, as in fev_kenward_roger; coefficients in R's order"),
                               coefficients = I(sub("^\\(Intercept\\)$", "Intercept", colnames(X))), beta = best$beta),
                          dense_kr(X, symmetric, with(list(V = matrix(unlist({
                            C <- diag(m); p <- unlist(best$parameters); C[lower.tri(C)] <- p[-(1:m)]; C <- C + t(C) - diag(m)
                            C * outer(p[1:m], p[1:m])}), m)), V[lower]), L))
print(results$fev_by_visit$expected$linear)
print(results$fev_by_visit$observed$linear)

save_json(c(list(about = list(
  made_by = "tests/oracle/inference.R",
  versions = versions(c("lme4", "lmerTest", "pbkrtest", "clubSandwich", "nlme", "RLRsim", "numDeriv", "jsonlite")),
  fits = "REML; lme4 fits rebuilt at an optimum polished by Newton steps (gradient of the log-likelihood in lme4's theta below 1e-6)",
  satterthwaite = "lmerTest; df_dense repeats df from the full observed information of the dense likelihood",
  kenward_roger = "pbkrtest (expected information, linear parameters): adjusted covariance, F scaled by `scaling`",
  sandwich = "clubSandwich, clusters are the subjects, working covariance that of the fit; wald_htz tests the coefficients named from zero",
  exact_rlrt = "RLRsim::exactRLRT; standard_error is that of the simulated p-value")), results),
  "tests/oracle/inference.json")
