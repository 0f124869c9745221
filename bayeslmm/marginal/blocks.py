"""Arranges a design for the likelihood: independent blocks, grouped by pattern, and reduced without loss.

V is block diagonal over the levels of one grouping factor, the *block factor*, once the terms that cross it are set
aside as further columns U of the design. Four exact steps make the likelihood cheap and well conditioned, none of
which depends on θ:

1. y is replaced by its least squares residual, X by an orthonormal basis and the columns of Z by multiples of about 1.
2. Blocks with the same Z, times and strata share one V: a *pattern*.
3. Where the errors of a block are independent with one variance, a rotation Q' of its rows splits them into the few
   rows that random effects touch, and pure error, of which only the cross-products matter.
4. A pattern of many blocks is replaced by a triangular factor of its cross-products: T = Σ vec(D_i) vec(D_i)'.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy import sparse

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual, nested
from ..covariance.correlation import Independent, Rows
from ..design import Design, Term

_CHUNK = 2_000_000  # numbers in one array of V: bounds the memory of a batch


@dataclass(frozen=True)
class Batch:
    """Blocks of m rows. P patterns, S data blocks in the order of their pattern.

    Z: for each term within blocks (P, m, ℓ, q), ℓ levels of the term in a block; rows: for each residual component;
    count (P,) how many blocks of the data each pattern stands for; owner (S,) pattern of each data block;
    data (S, m, c) the columns [X y]; crossed: sparse (S m, u) columns of crossed terms, or None; block (S,) which
    block of the data this is, levels: for each term (S, ℓ) the levels it touches (-1: none), both None once
    compressed.
    """

    Z: tuple[np.ndarray, ...]
    rows: tuple[Rows, ...]
    count: np.ndarray
    owner: np.ndarray
    data: np.ndarray
    crossed: sparse.csr_array | None
    block: np.ndarray | None
    levels: tuple[np.ndarray, ...] | None


@dataclass(frozen=True)
class Noise:
    """Directions of the data that no random effect touches: `count` of them, with cross-products `gram`."""

    rows: Rows
    count: int
    gram: np.ndarray


@dataclass(frozen=True)
class Blocks:
    """A design arranged for the likelihood, in units where y, X and Z are of order one.

    within, crossed: indices of terms; widths: columns of each crossed term; unit (K,): linear coordinate =
    unit x coordinate here; y_scale; basis (p, p): X = Q basis; center (p,): β at which y is centred;
    log_weights: Σ log of the known weights that were divided out.
    """

    batches: tuple[Batch, ...]
    noise: tuple[Noise, ...]
    within: tuple[int, ...]
    crossed: tuple[int, ...]
    widths: tuple[int, ...]
    n: int
    p: int
    unit: np.ndarray
    y_scale: float
    basis: np.ndarray
    center: np.ndarray
    log_weights: float
    levels: tuple[int, ...]
    z_scale: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Standard:
    """y, X and Z in units of order one, and the way back; R responses at once have R columns and R centres."""

    D: np.ndarray  # (n, p + 1): [Q, (y - X center) / y_scale]
    Z: tuple[np.ndarray, ...]
    z_scale: tuple[np.ndarray, ...]
    y_scale: float
    basis: np.ndarray
    center: np.ndarray


def standardize(design: Design, covariance: Covariance, responses: np.ndarray | None = None) -> Standard:
    """Centre y at least squares, orthonormalise X, scale Z. responses (n, R): in the place of y, in y's units."""
    X, y = design.X, design.y - design.offset
    Q, basis = np.linalg.qr(X)
    coefficients = Q.T @ y
    residual = y - Q @ coefficients
    scale = float(np.sqrt(residual @ residual / max(len(y) - X.shape[1], 1)))
    reference = float(np.sqrt(np.mean(y**2)))
    if scale <= 1e-13 * reference or scale == 0:
        scale = reference or 1.0
    if responses is not None:
        Y = responses - design.offset[:, None]
        coefficients = Q.T @ Y
        residual = Y - Q @ coefficients
    z_scale = []
    for term, bound in zip(design.terms, covariance.random, strict=True):
        rms = np.sqrt(np.mean(term.Z**2, axis=0))
        rms = np.where(rms > 0, rms, 1.0)
        for structure, columns in bound.blocks:
            if structure.scale.labels is None:  # one variance for all columns: one unit
                rms[list(columns)] = np.sqrt(np.mean(rms[list(columns)] ** 2))
        z_scale.append(rms)
    Z = tuple(t.Z / s for t, s in zip(design.terms, z_scale, strict=True))
    center = np.linalg.solve(basis, coefficients) if basis.size else coefficients
    return Standard(np.column_stack([Q, residual / scale]), Z, tuple(z_scale), scale, basis, center)


def _unit(covariance: Covariance, standard: Standard) -> np.ndarray:
    """Linear coordinates of the model in terms of those in standard units."""
    units = []
    for term, z in zip(covariance.random, standard.z_scale, strict=True):
        for structure, columns in term.blocks:
            z_block = z[list(columns)] if structure.scale.labels is not None else z[list(columns)][:1]
            unit = np.ones(structure.size)
            unit[: len(z_block)] = (standard.y_scale / z_block) ** 2
            if structure.free:
                unit[len(z_block) :] = [standard.y_scale**2 / (z_block[i] * z_block[j]) for i, j in structure._pairs()]
            elif structure.linear:
                unit[len(z_block) :] = unit[0]
            units.append(unit)
    units += [np.where(s.scales_with_variance, standard.y_scale**2, 1.0) for s in covariance.residual]
    return np.concatenate(units)


# --- which rows form a block ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partition:
    """The block of each row, and which terms stay within blocks or cross them."""

    codes: np.ndarray
    within: tuple[int, ...]
    crossed: tuple[int, ...]


def partition(terms: tuple[Term, ...], residual: BoundResidual, reducible: bool, n: int) -> Partition:
    """The cheapest block factor: cubes of block sizes against the cube of the number of crossed columns."""
    candidates = [t.codes for t in terms] + ([] if residual.subject is None else [residual.subject])
    if not candidates:
        return Partition(np.arange(n), (), ())
    best, lowest = None, np.inf
    for codes in candidates:
        if residual.subject is not None and not nested(residual.subject, codes):
            continue
        within = tuple(i for i, t in enumerate(terms) if nested(t.codes, codes))
        crossed = tuple(i for i in range(len(terms)) if i not in within)
        size = np.bincount(codes).astype(float)
        touched = np.zeros(len(size))
        for i in within:
            pairs = np.unique(np.column_stack([codes, terms[i].codes]), axis=0)[:, 0]
            touched += np.bincount(pairs, minlength=len(size)) * terms[i].Z.shape[1]
        m = np.minimum(size, touched) if reducible else size
        u = float(sum(len(terms[i].levels) * terms[i].Z.shape[1] for i in crossed))
        cost = np.sum(m**3) + 3 * u**3 + np.sum(m**2) * min(u, 50.0)
        if cost < lowest:
            best, lowest = Partition(codes, within, crossed), cost
    assert best is not None
    return best


# --- the whole arrangement --------------------------------------------------------------------------------


def arrange(design: Design, covariance: Covariance, residual: BoundResidual, *,
            clusters: np.ndarray | None = None, responses: np.ndarray | None = None) -> Blocks:  # fmt: skip
    """Steps 1 to 3: a design and its bound covariance -> blocks.

    clusters: codes (n,) that are to be the blocks, in which every term and residual subject is nested; the
    rows then stay as they are (no rotation, no division by weights) and each block has its whole V.
    responses: (n, R) columns that take the place of y, one set of blocks for all of them.
    """
    standard = standardize(design, covariance, responses)
    n, p = design.X.shape
    D, Z, log_weights = standard.D, standard.Z, 0.0
    diagonal = len(residual.parts) == 1 and isinstance(residual.parts[0].correlation, Independent)
    reducible = clusters is None and diagonal and not residual.parts[0].scale.power
    rows = residual.rows
    if reducible and rows[0].weight is not None:
        root = np.sqrt(rows[0].weight)[:, None]
        D, Z = D * root, tuple(z * root for z in Z)
        log_weights = float(np.log(rows[0].weight).sum())
        rows = (replace(rows[0], weight=None),)
    if clusters is None:
        part = partition(design.terms, residual, reducible, n)
    else:
        part = Partition(clusters, tuple(range(len(design.terms))), ())
    if reducible and rows[0].level is not None:
        strata = rows[0].level
        reducible = nested(part.codes, strata)
    U, widths = _crossed_columns(design.terms, Z, part.crossed)
    within = tuple(design.terms[i].codes for i in part.within)
    raw = _Raw(part.codes, within, tuple(_local_levels(part.codes, design.terms[i].codes) for i in part.within),
               tuple(Z[i] for i in part.within), rows, residual.subject, D, U)
    batches, noise = [], []
    for index in _by_size(raw):
        patterns = _patterns(raw, index)
        if reducible:
            kept, left = _rotate(raw, patterns)
            batches += kept
            noise += left
        else:
            batches.append(_as_batch(raw, patterns))
    batches = [chunk for b in _merge(batches) for chunk in _chunks(b)]
    return Blocks(
        tuple(batches), tuple(_pool(noise)), part.within, part.crossed, widths, n, p,
        _unit(covariance, standard), standard.y_scale, standard.basis, standard.center, log_weights,
        tuple(len(t.levels) for t in design.terms), standard.z_scale,
    )  # fmt: skip


def compress(blocks: Blocks) -> Blocks:
    """The same likelihood from fewer numbers; which block belongs to whom is lost."""
    if blocks.crossed:
        return blocks
    return replace(blocks, batches=tuple(_compress(b) for b in blocks.batches))


@dataclass(frozen=True)
class _Raw:
    """Rows as they come: block codes, per term levels, their number within the block and Z; residual rows, columns [X y], crossed columns."""

    codes: np.ndarray
    levels: tuple[np.ndarray, ...]
    local: tuple[np.ndarray, ...]
    Z: tuple[np.ndarray, ...]
    rows: tuple[Rows, ...]
    subject: np.ndarray | None
    D: np.ndarray
    U: sparse.csr_array | None


@dataclass(frozen=True)
class _Patterns:
    """Blocks of one size, sorted by pattern: index (B, m) of their rows, owner (B,), first block of each pattern."""

    index: np.ndarray
    owner: np.ndarray
    first: np.ndarray
    count: np.ndarray


def _crossed_columns(terms, Z, crossed) -> tuple[sparse.csr_array | None, tuple[int, ...]]:
    parts = []
    for i in crossed:
        n, q = Z[i].shape
        columns = terms[i].codes[:, None] * q + np.arange(q)
        where = (np.repeat(np.arange(n), q), columns.ravel())
        parts.append(sparse.csr_array((Z[i].ravel(), where), shape=(n, len(terms[i].levels) * q)))
    widths = tuple(p.shape[1] for p in parts)
    return (sparse.csr_array(sparse.hstack(parts, format="csr")) if parts else None), widths


def _local_levels(blocks: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Number the levels of a nested factor from 0 within each block."""
    pairs, inverse = np.unique(blocks.astype(np.int64) * (int(codes.max()) + 1) + codes, return_inverse=True)
    owner = pairs // (int(codes.max()) + 1)
    start = np.searchsorted(owner, owner, side="left")
    return (np.arange(len(pairs)) - start)[inverse]


def _by_size(raw: _Raw):
    """Row indices (B, m) of the blocks of each size m; rows in a canonical order within their block."""
    keys: list[np.ndarray] = []
    for z, local in zip(raw.Z, raw.local, strict=True):
        keys += [*z.T, local]
    for r in raw.rows:
        keys += [a for a in (r.time, r.position, r.level) if a is not None]
    if raw.subject is not None:
        keys.append(raw.subject)
    order = np.lexsort((*keys, raw.codes))
    size = np.bincount(raw.codes)
    start = np.concatenate([[0], np.cumsum(size)])[:-1]
    for m in np.unique(size[size > 0]):
        yield order[start[size == m][:, None] + np.arange(m)]


def _patterns(raw: _Raw, index: np.ndarray) -> _Patterns:
    """Blocks whose V is the same function of θ: equal Z, levels and residual constants."""
    B = len(index)
    constants = [z[index].reshape(B, -1) for z in raw.Z] + [local[index] for local in raw.local]
    for r in raw.rows:
        constants += [a[index] for a in (r.position, r.level, r.log_covariate, r.weight) if a is not None]
        if r.time is not None:
            constants.append(r.time[index] - r.time[index[:, :1]])
    if raw.subject is not None:
        constants.append(_relabel(raw.subject[index]))
    signature = np.ascontiguousarray(np.column_stack([np.asarray(c, float) for c in constants]) + 0.0) \
        if constants else np.zeros((B, 1))
    key = signature.view(np.dtype((np.void, signature.shape[1] * 8))).ravel()
    _, first, owner, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    position = np.empty(B, int)
    position[order] = np.arange(B)
    return _Patterns(index[order], owner[order], position[first], count)


def _relabel(codes: np.ndarray) -> np.ndarray:
    """Codes within each block, replaced by the place of their first row."""
    return np.argmax(codes[:, :, None] == codes[:, None, :], axis=2)


def _pattern_constants(raw: _Raw, patterns: _Patterns):
    """Z expanded by level (P, m, ℓ, q) and residual rows of one block of each pattern."""
    index = patterns.index[patterns.first]
    Z = []
    for z, local in zip(raw.Z, raw.local, strict=True):
        levels = local[index]
        indicator = (levels[..., None] == np.arange(levels.max(initial=0) + 1)).astype(float)
        Z.append(indicator[..., None] * z[index][:, :, None, :])
    same = None
    if raw.subject is not None:
        s = raw.subject[index]
        same = (s[:, :, None] == s[:, None, :]).astype(float)
        same = None if same.all() else same
    rows = tuple(
        Rows(*(None if a is None else a[index] for a in (r.position, r.time, r.level, r.log_covariate)),
             same=same, weight=None if r.weight is None else r.weight[index])
        for r in raw.rows
    )  # fmt: skip
    return tuple(Z), rows


def _as_batch(raw: _Raw, patterns: _Patterns) -> Batch:
    Z, rows = _pattern_constants(raw, patterns)
    index = patterns.index
    crossed = None if raw.U is None else raw.U[index.ravel()]
    levels = []
    for z, codes, local in zip(Z, raw.levels, raw.local, strict=True):
        found = np.full((len(index), z.shape[2]), -1)
        found[np.arange(len(index))[:, None], local[index]] = codes[index]
        levels.append(found)
    return Batch(
        Z, rows, patterns.count, patterns.owner, raw.D[index], crossed, raw.codes[index[:, 0]], tuple(levels)
    )


def _rotate(raw: _Raw, patterns: _Patterns) -> tuple[list[Batch], list[Noise]]:
    """Split the rows of each block into those that random effects touch and pure error.

    With Z_i = Q R, the rows Q'[X y] have covariance R G R' + σ²I and the rest σ²I; both are independent.
    """
    batch = _as_batch(raw, patterns)
    S, m, _ = batch.data.shape
    wide = [z.reshape(len(z), m, -1) for z in batch.Z]
    k = sum(w.shape[2] for w in wide)
    if k >= m:
        return [batch], []
    if k == 0:
        return [], _noise_by_stratum(batch, batch.data, None, m)
    Q, triangle = np.linalg.qr(np.concatenate(wide, axis=2))
    own = Q[batch.owner]
    reduced = np.swapaxes(own, 1, 2) @ batch.data
    error = batch.data - own @ reduced
    crossed = None
    if batch.crossed is not None:
        blocks = sparse.bsr_array((np.swapaxes(own, 1, 2), np.arange(S), np.arange(S + 1)), shape=(S * k, S * m))
        crossed = sparse.csr_array(blocks @ batch.crossed)
    ends = np.cumsum([w.shape[2] for w in wide])
    Z = tuple(
        triangle[:, :, e - w.shape[2] : e].reshape(len(z), k, *z.shape[2:])
        for e, w, z in zip(ends, wide, batch.Z, strict=True)
    )
    rows = tuple(Rows(*(None if a is None else a[:, :k] for a in (r.position, r.time, r.level))) for r in batch.rows)
    kept = replace(batch, Z=Z, rows=rows, data=reduced, crossed=crossed)
    return [kept], _noise_by_stratum(batch, error, crossed, m - k)


def _noise_by_stratum(batch: Batch, error: np.ndarray, crossed, surplus: int) -> list[Noise]:
    level = batch.rows[0].level
    stratum = np.zeros(len(batch.data), int) if level is None else level[batch.owner, 0]
    out = []
    for s in np.unique(stratum):
        chosen = np.flatnonzero(stratum == s)
        E = error[chosen].reshape(-1, error.shape[2])
        out.append(_error_products(E, _rows_of(batch.crossed, chosen, error.shape[1]),
                                   _rows_of(crossed, chosen, error.shape[1] - surplus),
                                   surplus * len(chosen), None if level is None else int(s)))
    return out


def _rows_of(U, chosen: np.ndarray, m: int):
    return None if U is None else U[(chosen[:, None] * m + np.arange(m)).ravel()]


def _error_products(E, U, U_reduced, count: int, level: int | None) -> Noise:
    gram = E.T @ E
    if U is not None:
        uu = (U.T @ U - U_reduced.T @ U_reduced).toarray()
        ue = U.T @ E
        gram = np.block([[uu, ue], [ue.T, gram]])
    one = np.zeros((1, 1), int)
    return Noise(Rows(position=one, level=None if level is None else one + level), count, gram)


# --- fewer and larger arrays ------------------------------------------------------------------------------


def _compress(batch: Batch) -> Batch:
    """Replace the N blocks of a pattern by a triangular factor of their cross-products where that is smaller."""
    S, m, c = batch.data.shape
    ends = np.cumsum(np.bincount(batch.owner, minlength=len(batch.count)))
    if not (np.diff(ends, prepend=0) > m * c).any():
        return batch
    data, owner = [], []
    for pattern, (start, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        part = batch.data[start:end]
        if len(part) > m * c:
            part = np.linalg.qr(part.reshape(len(part), m * c), mode="r").reshape(-1, m, c)
        data.append(part)
        owner.append(np.full(len(part), pattern))
    return replace(batch, data=np.concatenate(data), owner=np.concatenate(owner), block=None, levels=None)


def _merge(batches: list[Batch]) -> list[Batch]:
    """One batch for each number of rows."""
    out = []
    for m in sorted({b.data.shape[1] for b in batches}):
        same = [b for b in batches if b.data.shape[1] == m]
        out.append(same[0] if len(same) == 1 else _join(same))
    return out


def _join(batches: list[Batch]) -> Batch:
    shift = np.cumsum([0] + [len(b.count) for b in batches[:-1]])
    Z, levels = [], []
    for t in range(len(batches[0].Z)):
        most = max(b.Z[t].shape[2] for b in batches)
        Z.append(np.concatenate([_pad(b.Z[t], most, 2, 0) for b in batches]))
        levels.append(np.concatenate([_pad(b.levels[t], most, 1, -1) for b in batches]))
    return Batch(
        tuple(Z),
        tuple(_join_rows(parts) for parts in zip(*(b.rows for b in batches), strict=True)),
        np.concatenate([b.count for b in batches]),
        np.concatenate([b.owner + s for b, s in zip(batches, shift, strict=True)]),
        np.concatenate([b.data for b in batches]),
        None if batches[0].crossed is None else sparse.csr_array(sparse.vstack([b.crossed for b in batches])),
        np.concatenate([b.block for b in batches]),
        tuple(levels),
    )


def _pad(a: np.ndarray, length: int, axis: int, value: float) -> np.ndarray:
    width = [(0, length - size if i == axis else 0) for i, size in enumerate(a.shape)]
    return np.pad(a, width, constant_values=value)


def _join_rows(parts: tuple[Rows, ...]) -> Rows:
    def field(name):
        arrays = [getattr(r, name) for r in parts]
        if all(a is None for a in arrays):
            return None
        if name == "same":  # one batch may hold several subjects in a block and another only one
            shape = next(a for a in arrays if a is not None).shape[1:]
            arrays = [np.ones((_length(r), *shape)) if a is None else a for a, r in zip(arrays, parts, strict=True)]
        return np.concatenate(arrays)

    return Rows(**{f.name: field(f.name) for f in fields(Rows)})


def _length(rows: Rows) -> int:
    return next(len(a) for a in (rows.position, rows.time, rows.level) if a is not None)


def _take(rows: Rows, chosen) -> Rows:
    return Rows(**{f.name: None if (a := getattr(rows, f.name)) is None else a[chosen] for f in fields(Rows)})


def _chunks(batch: Batch):
    """Pieces whose arrays of V and of data stay below a bound; a pattern cut in two is counted once."""
    S, m, c = batch.data.shape
    P = len(batch.count)
    step = max(1, min(_CHUNK // max(m * m, 1), _CHUNK // max(m * c, 1)))
    if step >= max(S, P):
        yield batch
        return
    for start in range(0, S, step):
        stop = min(start + step, S)
        low, high = batch.owner[start], batch.owner[stop - 1] + 1
        count = batch.count[low:high].copy()
        if start and batch.owner[start - 1] == low:
            count[0] = 0
        yield Batch(
            tuple(z[low:high] for z in batch.Z),
            tuple(_take(r, slice(low, high)) for r in batch.rows),
            count,
            batch.owner[start:stop] - low,
            batch.data[start:stop],
            None if batch.crossed is None else batch.crossed[start * m : stop * m],
            batch.block[start:stop],
            tuple(x[start:stop] for x in batch.levels),
        )


def _pool(noise: list[Noise]) -> list[Noise]:
    """One record for each stratum."""
    out: dict[int, Noise] = {}
    for x in noise:
        key = -1 if x.rows.level is None else int(x.rows.level[0, 0])
        out[key] = x if key not in out else replace(x, count=out[key].count + x.count, gram=out[key].gram + x.gram)
    return list(out.values())
