"""Pools of threads leave the cores to their threads."""

import numpy as np
from threadpoolctl import threadpool_info

from wsss_jax.data.threads import thread_pool


def _blas_threads() -> list[int]:
    _ = np.ones((2, 2)) @ np.ones((2, 2))  # loads the library
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_products_of_matrices_run_on_one_thread_in_a_pool():
    before = _blas_threads()
    with thread_pool() as pool:
        found = list(pool.map(lambda _: _blas_threads(), range(2)))
    assert before and found == [[1] * len(before)] * 2
    assert _blas_threads() == before
