"""Run one stage of a run with options of Apache Beam, all as ``--name=value``: what Airflow's Beam operator starts.

python beam_stage.py --spherecast_stage=regrid --spherecast_run=/data/runs/mine --runner=FlinkRunner --parallelism=8
"""

from __future__ import annotations

import argparse
import sys

__all__ = ["main"]


def main() -> None:
    """Turn the options into those of `spherecast stage` and run it."""
    from dags.cli import main as spherecast

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--spherecast_stage", required=True)
    parser.add_argument("--spherecast_run", required=True)
    ours, beam = parser.parse_known_args()
    sys.argv = ["spherecast", "stage", ours.spherecast_stage, ours.spherecast_run, "--", *beam]
    spherecast()


if __name__ == "__main__":
    # This file's folder is not where its imports are.
    sys.path.pop(0)
    main()
