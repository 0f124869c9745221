# Writes the bundled data sets as CSV, as lme4 and nlme ship them.
#
#   Rscript tests/oracle/make_datasets.R bayeslmm/datasets
#
# Columns keep their R names; factors are written as quoted text, numbers with 15 digits, rows in R's order.

suppressPackageStartupMessages({
  library(lme4)
  library(nlme)
})

target <- commandArgs(trailingOnly = TRUE)
if (length(target) != 1) stop("usage: Rscript tests/oracle/make_datasets.R DIRECTORY")

shipped <- list(
  sleepstudy = lme4::sleepstudy,
  dyestuff = lme4::Dyestuff,
  pastes = lme4::Pastes,
  penicillin = lme4::Penicillin,
  orthodont = nlme::Orthodont,
  bodyweight = nlme::BodyWeight,
  machines = nlme::Machines,
  oxboys = nlme::Oxboys,
  ovary = nlme::Ovary
)

for (name in names(shipped)) {
  frame <- as.data.frame(shipped[[name]])
  factors <- vapply(frame, is.factor, logical(1))
  frame[factors] <- lapply(frame[factors], as.character)
  write.csv(frame, file.path(target, paste0(name, ".csv")), row.names = FALSE)
}
