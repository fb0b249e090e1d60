"""Slurm's commands as far as submitit calls them: this machine as a cluster without limits."""

from pathlib import Path

# Runs every task of a batch script's array in a process of its own, and returns at once.
SBATCH = r"""
script=$1
job=$$
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\)%.*/\1/p' "$script")
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_JOB_NODELIST=localhost
run() { # NAME of the task
    echo RUNNING >"$states/$1"
    if bash "$script"; then echo COMPLETED >"$states/$1"; else echo FAILED >"$states/$1"; fi
}
if [ -z "$last" ]; then
    SLURM_JOB_ID=$job run "$job" >/dev/null 2>&1 &
else
    for task in $(seq 0 "$last"); do
        SLURM_JOB_ID=$((job + task)) SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$task \
            run "${job}_$task" >/dev/null 2>&1 &
    done
fi
echo "Submitted batch job $job"
"""

# srun --unbuffered --output FILE --error FILE COMMAND …
SRUN = r"""
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
while [[ $1 == --* ]]; do
    case $1 in
        --output) output=$2; shift 2 ;;
        --error) error=$2; shift 2 ;;
        --unbuffered) shift ;;
        *) echo "srun: unknown option $1" >&2; exit 1 ;;
    esac
done
named() { echo "$1" | sed "s/%A_%a/$job/g; s/%j/$job/g; s/%t/0/g"; }
mkdir -p "$(dirname "$(named "$output")")"
export SLURM_PROCID=0 SLURM_LOCALID=0
exec "$@" >>"$(named "$output")" 2>>"$(named "$error")"
"""

# sacct -o JobID,State,NodeList --parsable2 -j JOB …
SACCT = r"""
echo "JobID|State|NodeList"
for file in "$states"/*; do echo "$(basename "$file")|$(cat "$file")|localhost"; done
"""


def install(directory: Path) -> None:
    """Write the commands into a directory, which is to stand on PATH."""
    states = directory / "states"
    states.mkdir(parents=True)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        path = directory / name
        path.write_text(f"#!/bin/bash\nstates='{states}'{text}")
        path.chmod(0o755)


def states(directory: Path) -> dict[str, str]:
    """How every task ended, or that it has not, by its id: what `install` was given has it."""
    return {path.name: path.read_text().strip() for path in (directory / "states").iterdir()}
