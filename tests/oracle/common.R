# A plain dense likelihood of linear mixed models, to make reference numbers with.
#
# A model is y ~ N(X beta, V), V = sum over terms of Z G Z' (within a group) + sum of residual components. V is formed
# block by block and factored densely; every parameter is free on the real line and without a unit (log standard
# deviation, log range, atanh of a correlation), so that the size of the gradient means the same for every model.
# Log-likelihood: -1/2 [log|V| + log|X'V^-1 X| + r'V^-1 r + (n - p) log 2 pi]; ML without log|X'V^-1 X| and with n.
# The optimum is found by nlminb and finished by Newton steps with Richardson derivatives (numDeriv).

suppressPackageStartupMessages({
  library(numDeriv)
  library(jsonlite)
})

# ---- data ----------------------------------------------------------------------------------------------------------

ids <- c("Subject", "Rat", "Mare", "Batch", "batch", "cask", "sample", "plate", "Worker", "Machine", "Diet",
         "Occasion", "Sex", "USUBJID", "AVISIT", "ARMCD")

read_table <- function(path) {
  frame <- read.csv(path, check.names = FALSE, stringsAsFactors = FALSE)
  for (name in intersect(names(frame), ids)) {
    labels <- as.character(frame[[name]])
    levels <- switch(name, Sex = c("Male", "Female"), ARMCD = c("PBO", "TRT"), AVISIT = sort(unique(labels)), unique(labels))
    frame[[name]] <- factor(labels, levels = levels)
  }
  frame
}

dataset <- function(name) read_table(file.path("bayeslmm/datasets", paste0(name, ".csv")))
oracle <- function(name) read_table(file.path("tests/oracle", name))

# ---- correlations: list(size, start, matrix(theta, rows), natural(theta)) ------------------------------------------

identity_correlation <- function() list(
  size = 0, start = numeric(0), key = function(rows) "i",
  matrix = function(theta, rows) diag(length(rows)), natural = function(theta) list()
)

lag_correlation <- function(kind, time, start) {
  rho <- switch(kind,
    exponential = function(u) exp(-u),
    gaussian = function(u) exp(-u^2),
    matern32 = function(u) (1 + sqrt(3) * u) * exp(-sqrt(3) * u),
    matern52 = function(u) (1 + sqrt(5) * u + 5 * u^2 / 3) * exp(-sqrt(5) * u),
    spherical = function(u) ifelse(u < 1, 1 - 1.5 * u + 0.5 * u^3, 0)
  )
  list(
    size = 1, start = log(start), key = function(rows) time[rows],
    matrix = function(theta, rows) rho(abs(outer(time[rows], time[rows], "-")) / exp(theta)),
    natural = function(theta) list(range = exp(theta))
  )
}

ar1_correlation <- function(position, start = 0.3) list(
  size = 1, start = atanh(start), key = function(rows) position[rows],
  matrix = function(theta, rows) {
    lag <- abs(outer(position[rows], position[rows], "-"))
    ifelse(lag == 0, 1, tanh(theta)^lag)
  },
  natural = function(theta) list(rho = tanh(theta))
)

exchangeable_correlation <- function(start = 0.3) list(
  size = 1, start = atanh(start), key = function(rows) "e",
  matrix = function(theta, rows) {
    m <- diag(length(rows))
    m[row(m) != col(m)] <- tanh(theta)
    m
  },
  natural = function(theta) list(rho = tanh(theta))
)

visit_correlation <- function(position, labels, table, size, start, names) list(
  size = size, start = start, key = function(rows) position[rows],
  matrix = function(theta, rows) table(theta)[position[rows], position[rows], drop = FALSE],
  natural = function(theta) names(theta, table(theta))
)

toeplitz_correlation <- function(position, labels, start = 0.3) {
  m <- length(labels)
  visit_correlation(position, labels, function(theta) toeplitz(c(1, tanh(theta))), m - 1, atanh(start / seq_len(m - 1)),
    function(theta, table) setNames(as.list(tanh(theta)), sprintf("rho[%d]", seq_len(m - 1))))
}

antedependence_correlation <- function(position, labels, start = 0.3) {
  m <- length(labels)
  table <- function(theta) {
    r <- tanh(theta)
    outer(seq_len(m), seq_len(m), Vectorize(function(i, j) if (i == j) 1 else prod(r[min(i, j):(max(i, j) - 1)])))
  }
  visit_correlation(position, labels, table, m - 1, rep(atanh(start), m - 1),
    function(theta, table) setNames(as.list(tanh(theta)), sprintf("rho[%s,%s]", labels[-m], labels[-1])))
}

free_correlation_matrix <- function(theta, q) {
  L <- diag(q)
  L[lower.tri(L)] <- theta
  L <- L / sqrt(rowSums(L^2))
  tcrossprod(L)
}

pair_names <- function(prefix, labels) {
  pairs <- which(lower.tri(diag(length(labels))), arr.ind = TRUE)
  if (nrow(pairs) == 0) character(0) else sprintf("%s[%s,%s]", prefix, labels[pairs[, 2]], labels[pairs[, 1]])
}

free_correlation <- function(position, labels) {
  m <- length(labels)
  visit_correlation(position, labels, function(theta) free_correlation_matrix(theta, m), m * (m - 1) / 2,
    rep(0.3, m * (m - 1) / 2),
    function(theta, table) setNames(as.list(table[lower.tri(table)]), pair_names("corr", labels)))
}

# ---- scales: standard deviation of each row ------------------------------------------------------------------------

common_scale <- function(start, name = "sigma") list(
  size = 1, start = log(start), key = function(rows) "c",
  sd = function(theta, rows) rep(exp(theta), length(rows)),
  natural = function(theta) setNames(list(exp(theta)), name)
)

weighted_scale <- function(start, weights) list(
  size = 1, start = log(start), key = function(rows) weights[rows],
  sd = function(theta, rows) exp(theta) / sqrt(weights[rows]),
  natural = function(theta) list(sigma = exp(theta))
)

by_scale <- function(start, by, name = "sigma") list(
  size = nlevels(by), start = rep(log(start), nlevels(by)), key = function(rows) as.integer(by)[rows],
  sd = function(theta, rows) exp(theta[as.integer(by)[rows]]),
  natural = function(theta) setNames(as.list(exp(theta)), sprintf("%s[%s]", name, levels(by)))
)

power_scale <- function(start, covariate, name = "sigma") list(
  size = 2, start = c(log(start), 0), key = function(rows) covariate[rows],
  sd = function(theta, rows) exp(theta[1]) * covariate[rows]^theta[2],
  natural = function(theta) setNames(list(exp(theta[1]), theta[2]), c(name, "power"))
)

component <- function(scale, correlation = identity_correlation()) list(
  size = scale$size + correlation$size, start = c(scale$start, correlation$start),
  key = function(rows) c(scale$key(rows), correlation$key(rows)),
  matrix = function(theta, rows) {
    s <- scale$sd(theta[seq_len(scale$size)], rows)
    correlation$matrix(theta[scale$size + seq_len(correlation$size)], rows) * outer(s, s)
  },
  natural = function(theta) c(scale$natural(theta[seq_len(scale$size)]),
                              correlation$natural(theta[scale$size + seq_len(correlation$size)]))
)

# ---- random terms --------------------------------------------------------------------------------------------------

term <- function(name, group, Z, start, structure = "unstructured") {
  q <- ncol(Z)
  colnames(Z) <- sub("^\\(Intercept\\)$", "Intercept", colnames(Z))
  pairs <- if (structure == "unstructured") q * (q - 1) / 2 else 0
  G <- function(theta) {
    C <- if (pairs > 0) free_correlation_matrix(theta[-seq_len(q)], q) else diag(q)
    C * outer(exp(theta[seq_len(q)]), exp(theta[seq_len(q)]))
  }
  list(
    name = name, group = factor(group), Z = Z, size = q + pairs, start = c(log(start), rep(0, pairs)), G = G,
    natural = function(theta) {
      sd <- setNames(as.list(exp(theta[seq_len(q)])), sprintf("sd_%s[%s]", name, colnames(Z)))
      if (pairs == 0) return(sd)
      C <- cov2cor(G(theta))
      c(sd, setNames(as.list(C[lower.tri(C)]), pair_names(paste0("corr_", name), colnames(Z))))
    }
  )
}

# ---- the model and its likelihood ----------------------------------------------------------------------------------

lmm <- function(y, X, terms = list(), residual, block, offset = 0) {
  parts <- c(terms, residual)
  sizes <- vapply(parts, function(part) part$size, numeric(1))
  ends <- cumsum(sizes)
  slices <- Map(function(size, end) end - size + seq_len(size), sizes, ends)
  n_terms <- length(terms)
  rows_of <- split(seq_along(y), factor(block))
  keys <- vapply(rows_of, function(rows) paste(c(
    length(rows),
    unlist(lapply(terms, function(t) c(t$Z[rows, ], match(t$group[rows], unique(t$group[rows]))))),
    unlist(lapply(residual, function(r) r$key(rows)))
  ), collapse = " "), character(1))
  ols <- qr.coef(qr(X), y - offset)   # centred at least squares: y'V^-1 y then loses no digits to the mean
  D <- cbind(X, y - offset - drop(X %*% ols))
  patterns <- lapply(split(rows_of, keys), function(members) {
    size <- length(members[[1]])
    list(rows = members[[1]], members = members, count = length(members),
         data = matrix(D[unlist(members), ], nrow = size))   # size x (members x columns)
  })
  cov <- function(theta, rows) {
    V <- matrix(0, length(rows), length(rows))
    for (k in seq_len(n_terms)) {
      t <- terms[[k]]
      Z <- t$Z[rows, , drop = FALSE]
      V <- V + Z %*% t$G(theta[slices[[k]]]) %*% t(Z) * outer(as.integer(t$group)[rows], as.integer(t$group)[rows], "==")
    }
    for (k in seq_along(residual)) V <- V + residual[[k]]$matrix(theta[slices[[n_terms + k]]], rows)
    V
  }
  list(y = y, X = X, offset = offset, ols = ols, terms = terms, residual = residual, patterns = patterns, rows_of = rows_of,
       labels = as.character(block), cov = cov, slices = slices, start = unlist(lapply(parts, function(part) part$start)))
}

evaluate <- function(model, theta, reml) {
  p <- ncol(model$X)
  n <- length(model$y)
  A <- matrix(0, p + 1, p + 1)
  logdet <- 0
  for (pattern in model$patterns) {
    V <- model$cov(theta, pattern$rows)
    U <- tryCatch(chol(V), error = function(e) NULL)
    if (is.null(U) || any(!is.finite(U))) return(list(loglik = -Inf))
    logdet <- logdet + 2 * pattern$count * sum(log(diag(U)))
    W <- backsolve(U, pattern$data, transpose = TRUE)
    dim(W) <- c(nrow(V) * pattern$count, p + 1)
    A <- A + crossprod(W)
  }
  XtX <- A[seq_len(p), seq_len(p), drop = FALSE]
  U <- chol(XtX)
  half <- backsolve(U, A[seq_len(p), p + 1], transpose = TRUE)
  rss <- A[p + 1, p + 1] - sum(half^2)
  twice <- logdet + rss + (n - p * reml) * log(2 * pi) + reml * 2 * sum(log(diag(U)))
  list(loglik = -twice / 2, beta = model$ols + drop(backsolve(U, half)), vcov = chol2inv(U))
}

newton <- function(objective, theta, tolerance = 1e-7) {
  value <- objective(theta)
  polished <- FALSE
  for (iteration in 1:30) {
    g <- grad(objective, theta)
    H <- hessian(objective, theta)
    e <- eigen(H, symmetric = TRUE)
    step <- -drop(e$vectors %*% (crossprod(e$vectors, g) / pmax(abs(e$values), 1e-8)))
    decrement <- -sum(g * step) / 2
    converged <- max(abs(g)) < tolerance && decrement < 1e-13 && min(e$values) > 0
    if (converged && polished) break
    polished <- converged   # one more step once converged: it is exact to the noise of the derivatives
    scale <- 1
    while (objective(theta + scale * step) > value + 1e-10 && scale > 1e-6) scale <- scale / 2
    theta <- theta + scale * step
    value <- objective(theta)
  }
  list(theta = theta, gradient = max(abs(g)), decrement = decrement, curvature = min(e$values))
}

optimum <- function(model, reml, starts = list(model$start)) {
  objective <- function(theta) {
    value <- -evaluate(model, theta, reml)$loglik
    if (is.finite(value)) value else 1e10
  }
  rough <- lapply(starts, function(start) {
    for (pass in 1:3) {
      found <- nlminb(start, objective,
                      control = list(eval.max = 4000, iter.max = 2000, rel.tol = 1e-14, x.tol = 1e-12))
      start <- found$par
    }
    found
  })
  best <- rough[[which.min(vapply(rough, function(found) found$objective, numeric(1)))]]
  newton(objective, best$par)
}

# Everything that a test may compare, at the optimum.
reference <- function(model, reml, starts = list(model$start), tolerance = 1e-6) {
  found <- optimum(model, reml, starts)
  if (found$gradient > tolerance || found$curvature <= 0)
    stop(sprintf("not converged: gradient %.2e, smallest curvature %.2e", found$gradient, found$curvature))
  at <- evaluate(model, found$theta, reml)
  theta <- found$theta
  n_terms <- length(model$terms)
  parts <- c(model$terms, model$residual)
  natural <- unlist(Map(function(part, slice) part$natural(theta[slice]), parts, model$slices))
  residual <- model$y - model$offset - drop(model$X %*% at$beta)
  solved <- numeric(length(residual))
  for (rows in model$rows_of) solved[rows] <- solve(model$cov(theta, rows), residual[rows])
  w <- G <- setNames(list(), character(0))   # {} in JSON where there are no random effects
  for (k in seq_len(n_terms)) {
    t <- model$terms[[k]]
    G_k <- t$G(theta[model$slices[[k]]])
    values <- rowsum(t$Z * solved, t$group) %*% G_k
    effects <- I(colnames(t$Z))
    G[[t$name]] <- list(effects = effects, values = unname(G_k))
    w[[t$name]] <- list(levels = I(rownames(values)), effects = effects, values = unname(values))
  }
  whole <- model$rows_of[[which.max(ifelse(lengths(model$rows_of) <= 12, lengths(model$rows_of), 0))]]
  V <- if (length(whole) <= 12) list(subject = model$labels[whole[1]], values = unname(model$cov(theta, whole)))
  list(
    loglik = at$loglik, beta = I(unname(at$beta)), se = I(unname(sqrt(diag(at$vcov)))), vcov = unname(at$vcov),
    parameters = as.list(natural), G = G, w = w, V = V,
    convergence = list(gradient = found$gradient, newton_decrement = found$decrement,
                       smallest_curvature = found$curvature),
    theta = theta
  )
}

# One entry of a JSON file; `extra` carries what the reader needs to rebuild the model.
entry <- function(data, formula, model, residual = NULL, starts = list(model$start), extra = list()) {
  reml <- reference(model, TRUE, starts)
  ml <- reference(model, FALSE, c(list(reml$theta), starts))
  cat(sprintf("%-12s %-58s %-42s %15.9f %15.9f\n", data, formula, if (is.null(residual)) "" else residual,
              reml$loglik, ml$loglik))
  drop_theta <- function(fit) fit[setdiff(names(fit), "theta")]
  c(
    list(data = data, formula = formula), if (!is.null(residual)) list(residual = residual),
    list(n = length(model$y), p = ncol(model$X), coefficients = I(sub("^\\(Intercept\\)$", "Intercept", colnames(model$X))),
         loglik_reml = reml$loglik, loglik_ml = ml$loglik, reml = drop_theta(reml), ml = drop_theta(ml)),
    extra
  )
}

expect_anchor <- function(what, value, anchor, tolerance) {
  gap <- abs(value - anchor)
  cat(sprintf("anchor  %-60s %17.9f  published %17.9f  gap %.1e%s\n", what, value, anchor, gap,
              if (gap > tolerance) "   <-- DIFFERS" else ""))
}

versions <- function(packages) c(
  list(R = R.version.string), setNames(lapply(packages, function(p) as.character(packageVersion(p))), packages)
)

save_json <- function(object, path) {
  write_json(object, path, digits = NA, auto_unbox = TRUE, pretty = TRUE, null = "null")
  cat("wrote", path, "\n")
}
