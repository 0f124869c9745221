# EBLUPs and their conditional standard deviations (beta taken as known), ranef(condVar = TRUE) of lme4 at a polished
# optimum: tests/oracle/random_effects.json. From the root of the repository: Rscript tests/oracle/random_effects.R
source("tests/oracle/common.R")
suppressPackageStartupMessages(library(lme4))

polished <- function(formula, data) {
  deviance <- do.call(lme4::lmer, list(formula, data, devFunOnly = TRUE))
  half <- function(theta) deviance(theta) / 2
  start <- do.call(lme4::lmer, list(formula, data))@theta
  start <- nlminb(start, half, lower = 1e-6, control = list(rel.tol = 1e-14))$par
  found <- newton(half, start)
  do.call(lme4::lmer, list(formula, data, start = list(theta = unname(found$theta)),
                           control = lmerControl(optimizer = NULL, check.conv.grad = "ignore")))
}
one <- function(data, formula) {
  table <- read.csv(file.path("bayeslmm/datasets", paste0(data, ".csv")), colClasses = NA)
  if (data == "sleepstudy") table$Subject <- factor(table$Subject)
  effects <- ranef(polished(as.formula(formula), table), condVar = TRUE)
  groups <- lapply(effects, function(x) {
    v <- attr(x, "postVar")
    levels <- sapply(strsplit(rownames(x), ":"), function(s) paste(rev(s), collapse = ":"))
    list(levels = unname(levels), w = unname(as.matrix(x)), variance = lapply(seq_len(dim(v)[3]), function(i) v[, , i]))
  })
  names(groups) <- ifelse(names(groups) == "cask:batch", "batch:cask", names(groups))
  list(data = data, formula = formula, groups = groups)
}
save_json(list(
  about = paste("ranef(condVar = TRUE) of lme4", packageVersion("lme4")),
  models = list(one("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
                one("pastes", "strength ~ 1 + (1 | batch/cask)"),
                one("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"))), "tests/oracle/random_effects.json")
