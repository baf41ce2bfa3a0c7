"""The backend of joblib that `rabbitry.util.joblib` registers. Imports joblib."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joblib._parallel_backends import AutoBatchingMixin
from joblib.parallel import ParallelBackendBase

from rabbitry import current
from rabbitry.cluster import cluster_resources
from rabbitry.util.executor import Executor


class RabbitryBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches as tasks, `n_jobs` at a time. What joblib starts inside of a batch runs on threads there.

    Args:
        remote_options: options of the tasks; `ray_remote_args` is Ray's name for it.
        options: what joblib has for every backend.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1
    _executor: Executor | None = None

    def __init__(
        self,
        remote_options: dict[str, Any] | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._given = {**(ray_remote_args or {}), **(remote_options or {})}
        self._remote_options = self._given

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many jobs run at once: -1 means the CPUs of the cluster, -2 one less, and so on.

        Raises:
            ValueError: `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        current.client()  # a session is started if there is none
        return max(1, int(cluster_resources().get("CPU", 1)) + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        remote_options: dict[str, Any] | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **options: Any,
    ) -> int:
        """Prepare for one call of `Parallel`; return how many jobs run at once."""
        count = self.effective_n_jobs(n_jobs)
        self.parallel = parallel
        self._remote_options = {**self._given, **(ray_remote_args or {}), **(remote_options or {})}
        self._executor = Executor(count, **self._remote_options)
        return count

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Any:
        """Send a batch; `callback` is called with its future when it is done."""
        assert self._executor is not None
        future = self._executor.submit(_run_batch, func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch that is done."""
        return out.result()

    def terminate(self) -> None:
        """End what `configure` began."""
        self._end()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what was sent; begin anew if `ensure_ready`."""
        if self._executor is not None:
            self._executor.interrupt()
        self._end()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)

    def _end(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _run_batch(batch: Callable[[], Any]) -> Any:
    return batch()
