# REML and ML references of models with structured residuals: tests/oracle/residual_models.json.
#
#   Rscript tests/oracle/residual_models.R    (from the root of the repository)
#
# Every optimum is found with the dense likelihood of common.R. Where nlme can write the model, its REML log-likelihood
# is printed beside it; it is not used.

source("tests/oracle/common.R")
suppressPackageStartupMessages(library(nlme))

results <- list()
add <- function(name, result) results[[name]] <<- result
design <- function(formula, data) model.matrix(formula, data)
# ---- orthodont -----------------------------------------------------------------------------------------------------

ortho <- dataset("orthodont")
X_ortho <- design(~ age * Sex, ortho)
visit <- as.integer(factor(ortho$age))
ages <- levels(factor(ortho$age))
ortho_model <- function(residual, Z = NULL, start = 2) lmm(
  ortho$distance, X_ortho, if (is.null(Z)) list() else list(term("Subject", ortho$Subject, Z, start)), residual, ortho$Subject)
one_ortho <- design(~ 1, ortho)
fixed <- "distance ~ age * Sex"

add("orthodont_unstructured", entry("orthodont", fixed, residual = 'Unstructured("age", subject="Subject")',
  ortho_model(list(component(by_scale(2, factor(ortho$age)), free_correlation(visit, ages))))))
add("orthodont_ar1", entry("orthodont", fixed, residual = 'AR1("age", subject="Subject")',
  ortho_model(list(component(common_scale(2), ar1_correlation(visit, 0.6))))))
add("orthodont_intercept_ar1", entry("orthodont", paste(fixed, "+ (1 | Subject)"), residual = 'AR1("age")',
  ortho_model(list(component(common_scale(1.3), ar1_correlation(visit, 0.1))), one_ortho)))
add("orthodont_intercept_by_sex", entry("orthodont", paste(fixed, "+ (1 | Subject)"), residual = 'Independent(by="Sex")',
  ortho_model(list(component(by_scale(1.3, ortho$Sex))), one_ortho)))
add("orthodont_slope_by_sex", entry("orthodont", paste(fixed, "+ (age | Subject)"), residual = 'Independent(by="Sex")',
  ortho_model(list(component(by_scale(1.3, ortho$Sex))), design(~ age, ortho), c(2, 0.2))))
add("orthodont_cs", entry("orthodont", fixed, residual = 'CompoundSymmetry("age", subject="Subject")',
  ortho_model(list(component(common_scale(2.3), exchangeable_correlation(0.6))))))

# ---- bodyweight ----------------------------------------------------------------------------------------------------

rats <- dataset("bodyweight")
X_rats <- design(~ Time * Diet, rats)
fixed <- "weight ~ Time * Diet"
slope <- design(~ Time, rats)
one_rats <- design(~ 1, rats)
rats_model <- function(residual, Z = NULL, start = NULL) lmm(
  rats$weight, X_rats, if (is.null(Z)) list() else list(term("Rat", rats$Rat, Z, start)), residual, rats$Rat)
nugget <- function(start) component(common_scale(start))
serial <- function(kind, sd, range) component(common_scale(sd, "sigma_serial"), lag_correlation(kind, rats$Time, range))
serial_alone <- function(kind, sd, range) component(common_scale(sd), lag_correlation(kind, rats$Time, range))
slopes <- paste(fixed, "+ (Time | Rat)")

add("bodyweight_slope", entry("bodyweight", slopes, rats_model(list(nugget(4)), slope, c(37, 0.25))))
add("bodyweight_slope_exponential", entry("bodyweight", slopes, residual = 'Exponential("Time")',
  rats_model(list(serial_alone("exponential", 4.5, 3.6)), slope, c(37, 0.25))))
add("bodyweight_three_components", entry("bodyweight", slopes, residual = 'Exponential("Time") + Independent()',
  rats_model(list(serial("exponential", 5, 15), nugget(2.4)), slope, c(37, 0.25))))
add("bodyweight_slope_power", entry("bodyweight", slopes, residual = 'Independent(power="Time")',
  rats_model(list(component(power_scale(4, rats$Time))), slope, c(37, 0.25))))
add("bodyweight_slope_exponential_power", entry("bodyweight", slopes, residual = 'Exponential("Time", power="Time")',
  rats_model(list(component(power_scale(4, rats$Time), lag_correlation("exponential", rats$Time, 3.6))), slope, c(37, 0.25))))

# Serial processes, with starts on both sides of every range; models whose optimum lies on a boundary are left out
# (an intercept beside an exponential or spherical process with a nugget has variance 0 here).
serial_entry <- function(name, kind, random, with_nugget, sds, ranges) {
  call <- c(exponential = "Exponential", gaussian = "Gaussian", matern32 = "Matern32", matern52 = "Matern52",
            spherical = "Spherical")[[kind]]
  call <- sprintf(if (random == "") '%s("Time", subject="Rat")' else '%s("Time")', call)
  Z <- list("0" = NULL, "(1 | Rat)" = one_rats, "(Time | Rat)" = slope)[[if (random == "") "0" else random]]
  build <- function(sd, range) rats_model(
    if (with_nugget) list(serial(kind, sd, range), nugget(3)) else list(serial_alone(kind, sd, range)),
    Z, c(37, 0.25)[seq_len(max(1, ncol(Z)))])
  grid <- expand.grid(sd = sds, range = ranges)
  starts <- Map(function(sd, range) build(sd, range)$start, grid$sd, grid$range)
  add(name, entry("bodyweight", if (random == "") fixed else paste(fixed, "+", random), build(sds[1], ranges[1]),
                  residual = paste0(call, if (with_nugget) " + Independent()"), starts = starts))
}
small <- c(5, 12)
ranges <- c(2, 5, 20, 60)
long <- c(60, 300, 1000)
serial_entry("bodyweight_exponential", "exponential", "", FALSE, 37, long)
serial_entry("bodyweight_exponential_nugget", "exponential", "", TRUE, 37, long)
serial_entry("bodyweight_intercept_exponential", "exponential", "(1 | Rat)", FALSE, small, ranges)
serial_entry("bodyweight_intercept_gaussian", "gaussian", "(1 | Rat)", FALSE, small, ranges)
serial_entry("bodyweight_intercept_gaussian_nugget", "gaussian", "(1 | Rat)", TRUE, small, ranges)
serial_entry("bodyweight_intercept_matern32", "matern32", "(1 | Rat)", FALSE, small, ranges)
serial_entry("bodyweight_intercept_matern32_nugget", "matern32", "(1 | Rat)", TRUE, small, ranges)
serial_entry("bodyweight_intercept_matern52", "matern52", "(1 | Rat)", FALSE, small, ranges)
serial_entry("bodyweight_intercept_matern52_nugget", "matern52", "(1 | Rat)", TRUE, small, ranges)
serial_entry("bodyweight_matern32_nugget", "matern32", "", TRUE, 37, long)
serial_entry("bodyweight_gaussian_nugget", "gaussian", "", TRUE, 37, long)
serial_entry("bodyweight_spherical", "spherical", "", FALSE, 37, long)
serial_entry("bodyweight_spherical_nugget", "spherical", "", TRUE, 37, long)
serial_entry("bodyweight_slope_gaussian_nugget", "gaussian", "(Time | Rat)", TRUE, small, ranges)
serial_entry("bodyweight_slope_matern32_nugget", "matern32", "(Time | Rat)", TRUE, small, ranges)
serial_entry("bodyweight_slope_matern52_nugget", "matern52", "(Time | Rat)", TRUE, small, ranges)

# ---- ovary -----------------------------------------------------------------------------------------------------------

mares <- dataset("ovary")
X_mares <- design(~ sin(2 * pi * Time) + cos(2 * pi * Time), mares)
row_number <- ave(seq_len(nrow(mares)), mares$Mare, FUN = seq_along)
mares_model <- function(correlation, random, sd = 4) lmm(
  mares$follicles, X_mares, if (random) list(term("Mare", mares$Mare, design(~ 1, mares), 2)) else list(),
  list(component(common_scale(sd), correlation)), mares$Mare)
fixed_mares <- "follicles ~ sin(2*pi*Time) + cos(2*pi*Time)"
mares_entry <- function(name, call, correlation, random) add(name, entry(
  "ovary", paste0(fixed_mares, if (random) " + (1 | Mare)"), mares_model(correlation, random), residual = call))
mares_entry("ovary_intercept", "Independent()", identity_correlation(), TRUE)
mares_entry("ovary_intercept_ar1", "AR1()", ar1_correlation(row_number, 0.6), TRUE)
mares_entry("ovary_ar1", 'AR1(subject="Mare")', ar1_correlation(row_number, 0.7), FALSE)
mares_entry("ovary_intercept_exponential", 'Exponential("Time")', lag_correlation("exponential", mares$Time, 0.1), TRUE)
mares_entry("ovary_exponential", 'Exponential("Time", subject="Mare")', lag_correlation("exponential", mares$Time, 0.1), FALSE)
mares_entry("ovary_matern32", 'Matern32("Time", subject="Mare")', lag_correlation("matern32", mares$Time, 0.1), FALSE)
mares_entry("ovary_spherical", 'Spherical("Time", subject="Mare")', lag_correlation("spherical", mares$Time, 0.4), FALSE)
mares_entry("ovary_intercept_spherical", 'Spherical("Time")', lag_correlation("spherical", mares$Time, 0.2), TRUE)
add("ovary_exponential_nugget", entry("ovary", fixed_mares, residual = 'Exponential("Time", subject="Mare") + Independent()',
  lmm(mares$follicles, X_mares, list(), list(component(common_scale(4, "sigma_serial"),
    lag_correlation("exponential", mares$Time, 0.3)), component(common_scale(2))), mares$Mare)))

# ---- fev: residual covariance by visit -------------------------------------------------------------------------------

fev <- oracle("fev.csv")
fev <- fev[!is.na(fev$FEV1), ]
X_fev <- design(~ ARMCD, fev)
position <- as.integer(fev$AVISIT)
visits <- levels(fev$AVISIT)
correlations <- list(
  us = free_correlation(position, visits), ar1 = ar1_correlation(position), cs = exchangeable_correlation(),
  toep = toeplitz_correlation(position, visits), ad = antedependence_correlation(position, visits))
calls <- c(us = "Unstructured", ar1 = "AR1", cs = "CompoundSymmetry", toep = "Toeplitz", ad = "Antedependence")
for (name in names(correlations)) for (by_visit in c(FALSE, TRUE)) {
  if (name == "us" && !by_visit) next
  scale <- if (by_visit) by_scale(9, fev$AVISIT) else common_scale(9)
  label <- paste0("fev_", name, if (by_visit && name != "us") "h")
  call <- sprintf('%s("AVISIT", %ssubject="USUBJID")', calls[[name]], if (by_visit && name != "us") 'by="AVISIT", ' else "")
  add(label, entry("fev.csv", "FEV1 ~ ARMCD", residual = call,
    lmm(fev$FEV1, X_fev, list(), list(component(scale, correlations[[name]])), fev$USUBJID)))
}
# ---- beside nlme and glmmTMB, for information ------------------------------------------------------------------------

control <- lmeControl(maxIter = 500, msMaxIter = 1000, niterEM = 100, opt = "nlminb", msTol = 1e-10, tolerance = 1e-9,
                      returnObject = TRUE)
loose <- glsControl(maxIter = 500, msMaxIter = 1000, msTol = 1e-10, tolerance = 1e-9, returnObject = TRUE)
rats$Rat <- factor(rats$Rat)
nlme_fits <- list(
  orthodont_unstructured = quote(gls(distance ~ age * Sex, ortho, corSymm(form = ~ visit_number | Subject), varIdent(form = ~ 1 | age), control = loose)),
  orthodont_ar1 = quote(gls(distance ~ age * Sex, ortho, corAR1(form = ~ 1 | Subject), control = loose)),
  orthodont_intercept_ar1 = quote(lme(distance ~ age * Sex, ortho, ~ 1 | Subject, corAR1(form = ~ 1 | Subject), control = control)),
  orthodont_intercept_by_sex = quote(lme(distance ~ age * Sex, ortho, ~ 1 | Subject, weights = varIdent(form = ~ 1 | Sex), control = control)),
  bodyweight_slope = quote(lme(weight ~ Time * Diet, rats, ~ Time | Rat, control = control)),
  bodyweight_slope_exponential = quote(lme(weight ~ Time * Diet, rats, ~ Time | Rat, corExp(form = ~ Time), control = control)),
  bodyweight_three_components = quote(lme(weight ~ Time * Diet, rats, ~ Time | Rat, corExp(c(15, 0.2), form = ~ Time, nugget = TRUE), control = control)),
  bodyweight_slope_power = quote(lme(weight ~ Time * Diet, rats, ~ Time | Rat, weights = varPower(form = ~ Time), control = control)),
  bodyweight_slope_exponential_power = quote(lme(weight ~ Time * Diet, rats, ~ Time | Rat, corExp(form = ~ Time), varPower(form = ~ Time), control = control)),
  bodyweight_intercept_gaussian_nugget = quote(lme(weight ~ Time * Diet, rats, ~ 1 | Rat, corGaus(c(50, 0.1), form = ~ Time, nugget = TRUE), control = control)),
  bodyweight_slope_gaussian_nugget = quote(lme(weight ~ Time * Diet, rats, ~ Time | Rat, corGaus(c(6, 0.3), form = ~ Time, nugget = TRUE), control = control)),
  bodyweight_spherical_nugget = quote(gls(weight ~ Time * Diet, rats, corSpher(c(1400, 0.01), form = ~ Time | Rat, nugget = TRUE), control = loose)),
  bodyweight_exponential_nugget = quote(gls(weight ~ Time * Diet, rats, corExp(c(900, 0.01), form = ~ Time | Rat, nugget = TRUE), control = loose)),
  ovary_intercept = quote(lme(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, ~ 1 | Mare, control = control)),
  ovary_intercept_ar1 = quote(lme(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, ~ 1 | Mare, corAR1(form = ~ 1 | Mare), control = control)),
  ovary_ar1 = quote(gls(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, corAR1(form = ~ 1 | Mare), control = loose)),
  ovary_intercept_exponential = quote(lme(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, ~ 1 | Mare, corCAR1(form = ~ Time | Mare), control = control)),
  ovary_exponential = quote(gls(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, corCAR1(form = ~ Time | Mare), control = loose)),
  ovary_spherical = quote(gls(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, corSpher(0.4, form = ~ Time | Mare), control = loose)),
  fev_us = quote(gls(FEV1 ~ ARMCD, fev, corSymm(form = ~ position | USUBJID), varIdent(form = ~ 1 | AVISIT), control = loose)),
  fev_ar1 = quote(gls(FEV1 ~ ARMCD, fev, corAR1(form = ~ position | USUBJID), control = loose)),
  fev_ar1h = quote(gls(FEV1 ~ ARMCD, fev, corAR1(form = ~ position | USUBJID), varIdent(form = ~ 1 | AVISIT), control = loose)),
  fev_csh = quote(gls(FEV1 ~ ARMCD, fev, corCompSymm(form = ~ 1 | USUBJID), varIdent(form = ~ 1 | AVISIT), control = loose))
)
ortho$visit_number <- visit
fev$position <- position
for (name in names(nlme_fits)) {
  value <- tryCatch(as.numeric(logLik(eval(nlme_fits[[name]]))), error = function(e) NA_real_, warning = function(w) NA_real_)
  gap <- value - results[[name]]$loglik_reml
  cat(sprintf("nlme    %-40s %15.9f  gap %9.1e%s\n", name, value, gap, if (isTRUE(gap > 1e-6)) "   <-- nlme is higher" else ""))
}

# ---- anchors ---------------------------------------------------------------------------------------------------------

at <- function(name) results[[name]]
sas <- fromJSON("tests/oracle/sas_fev.json")
expect_anchor("orthodont unstructured, -2 ML", -2 * at("orthodont_unstructured")$loglik_ml, 419.477048115, 1e-8)
expect_anchor("orthodont unstructured, -2 REML", -2 * at("orthodont_unstructured")$loglik_reml, 424.546800199, 1e-8)
expect_anchor("orthodont AR(1), -2 REML", -2 * at("orthodont_ar1")$loglik_reml, 444.587448576, 1e-8)
expect_anchor("orthodont intercept + AR(1), -2 REML", -2 * at("orthodont_intercept_ar1")$loglik_reml, 433.708112318, 1e-8)
expect_anchor("orthodont intercept, sd by Sex, -2 REML", -2 * at("orthodont_intercept_by_sex")$loglik_reml, 415.220479573, 1e-8)
expect_anchor("bodyweight slope, REML", at("bodyweight_slope")$loglik_reml, -575.85987441, 1e-8)
expect_anchor("bodyweight slope + exponential, REML", at("bodyweight_slope_exponential")$loglik_reml, -566.02959006, 1e-8)
expect_anchor("  range", at("bodyweight_slope_exponential")$reml$parameters$range, 3.6505, 5e-5)
expect_anchor("  sigma", at("bodyweight_slope_exponential")$reml$parameters$sigma, 4.5501, 5e-5)
three <- at("bodyweight_three_components")$reml
p <- three$parameters
expect_anchor("bodyweight three components, REML", three$loglik, -563.88413876, 1e-8)
expect_anchor("  G11", p[[1]]^2, 1364.79, 5e-3)
expect_anchor("  corr", p[[3]], -0.162, 5e-4)
expect_anchor("  sd of slopes", p[[2]], 0.2301, 5e-5)
expect_anchor("  serial + error variance", p$sigma_serial^2 + p$sigma^2, 33.1665, 5e-5)
expect_anchor("  error share", p$sigma^2 / (p$sigma_serial^2 + p$sigma^2), 0.17561, 5e-6)
expect_anchor("  range", p$range, 17.150, 5e-4)
expect_anchor("bodyweight slope, power of Time, REML", at("bodyweight_slope_power")$loglik_reml, -575.26678376, 1e-8)
expect_anchor("  power", at("bodyweight_slope_power")$reml$parameters$power, -0.0658, 5e-5)
expect_anchor("bodyweight slope + exponential, power, REML", at("bodyweight_slope_exponential_power")$loglik_reml, -565.45788600, 1e-8)
for (name in c("us", "ar1", "cs", "toep")) {
  given <- sas$covariance[[name]]
  if (is.null(given)) given <- Filter(is.list, sas)[[1]][[name]]
  expect_anchor(paste("SAS fev", name, "-2 REML"), -2 * at(paste0("fev_", name))$loglik_reml, given$minus2_reml_loglik, 1e-6)
  expect_anchor(paste("SAS fev", name, "treatment"), at(paste0("fev_", name))$reml$beta[2], given$kenward_roger$estimate, 1e-6)
}

save_json(c(list(about = list(
  made_by = "tests/oracle/residual_models.R", versions = versions(c("nlme", "numDeriv", "jsonlite")),
  method = paste("Dense likelihood maximised by nlminb from several starts, finished by Newton steps with Richardson derivatives",
                 "in log standard deviations, log ranges and inverse hyperbolic tangents of correlations."),
  loglik = "-1/2 [log|V| + log|X'V^-1 X| + r'V^-1 r + (n - p) log 2 pi]; ML without log|X'V^-1 X| and with n",
  definitions = paste("lag u, range r: exponential exp(-u/r); Gaussian exp(-(u/r)^2); Matern with sqrt(2 nu) u / r; spherical",
                      "1 - 1.5 u/r + 0.5 (u/r)^3, 0 beyond r. power: sd = sigma * covariate^power. sigma_serial is the sd of the",
                      "serial process where an independent error stands beside it, sigma otherwise the residual sd."),
  w = "EBLUPs of the random effects, G Z' V^-1 (y - X beta); V is the marginal covariance of one subject, where it has at most 12 rows",
  levels = "ARMCD: PBO is the reference; Sex: Male; Diet: 1. fev.csv: rows with missing FEV1 left out")), results),
  "tests/oracle/residual_models.json")
