"""Runtime environments: what a task, an actor or a whole job wants to find around it.

| module | what is in it |
|---|---|
| `runtime_env` | `RuntimeEnv`, and how environments are checked and inherited |
| `config` | `RuntimeEnvConfig` |
| `checks` | the check of each field |
| `uris` | what may stand in `working_dir` and `py_modules` |
| `plugins` | fields that other packages add |
"""

from __future__ import annotations

from rabbitry.runtime_env.config import RuntimeEnvConfig
from rabbitry.runtime_env.plugins import RuntimeEnvPlugin
from rabbitry.runtime_env.runtime_env import (
    RuntimeEnv,
    check_for_task,
    check_runtime_env,
    merge_runtime_envs,
)

__all__ = [
    "RuntimeEnv",
    "RuntimeEnvConfig",
    "RuntimeEnvPlugin",
    "check_for_task",
    "check_runtime_env",
    "merge_runtime_envs",
]
