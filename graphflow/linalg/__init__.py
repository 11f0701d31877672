"""Linear algebra by PyTorch's names: factorisations, equations, norms.

Matrices are the last two dimensions; all before are batches.  Products are kernels; what
needs a factorisation is computed by NumPy on the host, also inside compiled programs.
"""

from graphflow.errors import LinAlgError
from graphflow.linalg.equations import (
    det,
    inv,
    inv_ex,
    lstsq,
    matrix_exp,
    matrix_power,
    multi_dot,
    pinv,
    slogdet,
    solve,
    solve_ex,
    solve_triangular,
    tensorinv,
    tensorsolve,
)
from graphflow.linalg.factorisations import (
    cholesky,
    cholesky_ex,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    householder_product,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    matrix_sqrth,
    polar,
    qr,
    svd,
    svdvals,
)
from graphflow.linalg.indefinite import ldl_factor, ldl_factor_ex, ldl_solve
from graphflow.linalg.norms import (
    cond,
    cross,
    diagonal,
    matmul,
    matrix_norm,
    matrix_rank,
    norm,
    vander,
    vecdot,
    vector_norm,
)

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh",
    "eigvals", "eigvalsh", "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex",
    "ldl_solve", "lstsq", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul", "matrix_exp",
    "matrix_norm", "matrix_power", "matrix_rank", "matrix_sqrth", "multi_dot", "norm", "pinv",
    "polar", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd", "svdvals",
    "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm",
]  # fmt: skip
