# What lme4 and nlme add to -2 log-likelihood in AIC and BIC: tests/oracle/criteria.json.
# From the root of the repository: Rscript tests/oracle/criteria.R
suppressPackageStartupMessages({
  library(lme4)
  library(nlme)
  library(jsonlite)
})
read <- function(name) read.csv(file.path("bayeslmm/datasets", paste0(name, ".csv")))
sleep <- read("sleepstudy")
ortho <- read("orthodont")

penalties <- function(fit) {
  l <- as.numeric(logLik(fit))
  list(AIC = AIC(fit) + 2 * l, BIC = BIC(fit) + 2 * l, parameters = attr(logLik(fit), "df"))
}
case <- function(data, table, formula, fixed, random, text) {
  both <- function(reml) list(
    lme4 = penalties(lmer(formula, table, REML = reml)),
    nlme = penalties(lme(fixed, table, random, method = if (reml) "REML" else "ML")))
  list(data = data, formula = text, REML = both(TRUE), ML = both(FALSE))
}
results <- list(
  sleepstudy = case("sleepstudy", sleep, Reaction ~ Days + (Days | Subject), Reaction ~ Days, ~ Days | Subject,
                    "Reaction ~ Days + (Days | Subject)"),
  orthodont = case("orthodont", ortho, distance ~ age * Sex + (1 | Subject), distance ~ age * Sex, ~ 1 | Subject,
                   "distance ~ age * Sex + (1 | Subject)"))
about <- paste("AIC and BIC less -2 log-likelihood; lme4", packageVersion("lme4"), "and nlme", packageVersion("nlme"))
writeLines(toJSON(c(list(about = about), results), auto_unbox = TRUE, digits = 15, pretty = TRUE), "tests/oracle/criteria.json")
