"""Makes fbrc_agent/environments/d4rl_tasks.json of the installed d4rl; run from the repository:

python -m tests.helpers.d4rl_table
"""

import importlib.util
import json
import os
import runpy

from fbrc_agent.environments import tasks

_NOTICE = (
    "Addresses and reference scores (returns of a random policy and of an expert) of D4RL's tasks, "
    "taken from d4rl/infos.py of the package d4rl 1.1 (https://github.com/Farama-Foundation/D4RL) "
    "and rearranged. D4RL is licensed under the Apache License, Version 2.0 "
    "(http://www.apache.org/licenses/LICENSE-2.0). Fu, Kumar, Nachum, Tucker, Levine, 'D4RL: "
    "Datasets for Deep Data-Driven Reinforcement Learning', arXiv:2004.07219."
)


def find_infos():
    """Returns the path of d4rl's infos.py, or None; `import d4rl` would import its simulators."""
    spec = importlib.util.find_spec("d4rl")
    return spec and os.path.join(spec.submodule_search_locations[0], "infos.py")


def make(path):
    """Returns the table that infos.py, at `path`, holds."""
    infos = runpy.run_path(path)
    low, high = infos["REF_MIN_SCORE"], infos["REF_MAX_SCORE"]
    return {
        "notice": _NOTICE,
        "tasks": {
            task: {
                "data_url": url,
                "reference_scores": [low[task], high[task]] if task in low else None,
            }
            for task, url in infos["DATASET_URLS"].items()
        },
    }


if __name__ == "__main__":
    table = make(find_infos())
    notice = json.dumps(table["notice"])
    rows = [f"  {json.dumps(task)}: {json.dumps(entry)}" for task, entry in table["tasks"].items()]
    lines = ["{", f' "notice": {notice},', ' "tasks": {', ",\n".join(rows), " }", "}"]
    with open(tasks.D4RL_TABLE, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
