# Seconds of processor time that lme4 takes for the 18 refits of sleepstudy without one subject, the fastest of 5:
# tests/oracle/influence_time.json, beside the time of `yardstick` of tests/test_influence.py on the same machine.
# From the root of the repository: OMP_NUM_THREADS=1 Rscript tests/oracle/influence_time.R
suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})
d <- read.csv("bayeslmm/datasets/sleepstudy.csv")
d$Subject <- factor(d$Subject)
refits <- function() for (s in levels(d$Subject)) lmer(Reaction ~ Days + (Days | Subject), d[d$Subject != s, ])
seconds <- min(replicate(5, system.time(refits())[["user.self"]]))
python <- paste("import sys, timeit; sys.path.insert(0, 'tests'); import time; from test_influence import yardstick;",
                "print(min(timeit.repeat(yardstick, number=1, repeat=9, timer=time.process_time)))")
yardstick <- as.numeric(system2("python", c("-W", "ignore", "-c", shQuote(python)), stdout = TRUE))
write_json(list(about = paste("18 refits of sleepstudy by lme4", packageVersion("lme4"), "without one subject each"),
                seconds = seconds, yardstick = yardstick), "tests/oracle/influence_time.json", auto_unbox = TRUE,
           pretty = TRUE, digits = 6)
