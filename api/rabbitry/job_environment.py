"""The environment of a job: what its driver says of it, and what whoever submitted the job has said already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rabbitry import environment, submitted_job
from rabbitry.runtime_env.runtime_env import check_runtime_env, conflicts, merge_runtime_envs
from rabbitry_broker.runtime_environments import digest_of

if TYPE_CHECKING:
    from rabbitry.client import Client


def given(runtime_env: dict[str, Any] | None, *, uv_run: bool = True) -> dict[str, Any]:
    """Return the environment that `init(runtime_env=...)` means, checked.

    Args:
        runtime_env: what it was given.
        uv_run: whether a driver that `uv run` started brings its environment along.

    Raises:
        TypeError: a field is of the wrong type.
        ValueError: an impossible value, or the job was given another one.
        RuntimeError: `uv run` and fields that exclude each other.
    """
    env = check_runtime_env(runtime_env) or {}
    of_job = submitted_job.runtime_env()
    if of_job:
        both = conflicts(of_job, env)
        if both and not environment.is_on(*environment.OVERRIDE_JOB_RUNTIME_ENV):
            variable = environment.OVERRIDE_JOB_RUNTIME_ENV[0]
            raise ValueError(
                f"init(runtime_env=...) sets {', '.join(both)}, and so does the job that this program is: "
                f"leave it out in one place, or set {variable}=1 to let the program's stand."
            )
        env = merge_runtime_envs(of_job, env) or {}
    if uv_run:
        from rabbitry.packaging.uv_run import with_uv_run

        env = with_uv_run(env)
    return env


def enter(client: Client, env: dict[str, Any]) -> None:
    """Make an environment the job's: upload what it names of this machine, and have nodes set it up.

    Args:
        client: of the driver, which is on record.
        env: as `given` returned it.

    Raises:
        RuntimeEnvSetupError: something that it names cannot be read, or is too large.
        TypeError: a function that it names cannot be pickled.
    """
    if not env:
        return
    from rabbitry.packaging.preparing import prepare

    environments = client.environments
    client.job_env = environments.resolved(prepare(env, environments))
    code = environments.code(None)
    if digest_of(code) and client.job_env.get("config", {}).get("eager_install", True):
        client.store.announce_environment(client.job, code)
