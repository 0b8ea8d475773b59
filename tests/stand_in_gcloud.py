"""A stand-in for gcloud: notes in the folder $STAND_IN what it is asked, and answers as it is told.

told.json there has for what is asked, by `word`, the next answers in turn: of "describe" and "queue
describe" states or errors, of all else exit codes. With a "job" in it, the command for all workers
is run by two processes; the second gets SIGTERM once "rows" are there, where "preempt" says so.
"""

import json
import os
import sys
import time

FAILURES = {"NOT_FOUND", "PERMISSION_DENIED", "UNAVAILABLE"}


def word(words: list[str]) -> str:
    """What is asked: create, describe, delete, ssh, scp, train or storage; of a queue: queue ..."""
    act = words[3] if words[0] == "compute" else words[0]
    queue = "queue " if "queued-resources" in words else ""
    return queue + ("train" if "launch.train" in " ".join(words) else act)


def main(here: str, words: list[str]) -> int | str:
    """The exit code, or what an error says."""
    with open(f"{here}/asked", "a") as file:
        file.write(json.dumps(words) + "\n")
    with open(f"{here}/told.json") as file:
        told = json.load(file)
    asked = word(words)
    if asked == "train" and "job" in told:
        return two_workers(here, told, words)
    usual = {"describe": "READY", "queue describe": "ACTIVE"}.get(asked, 0)
    answer = next_of(here, told, asked, usual)
    if isinstance(answer, int):
        return answer
    if answer in FAILURES:
        return f"ERROR: (gcloud) {answer}"
    print("WARNING: gcloud is old", file=sys.stderr)
    print(answer)
    return 0


def next_of(here: str, told: dict, asked: str, usual):
    """The next answer it was told, `usual` after the last."""
    answer = told[asked].pop(0) if told.get(asked) else usual
    with open(f"{here}/told.json", "w") as file:
        json.dump(told, file)
    return answer


def two_workers(here: str, told: dict, words: list[str]) -> int:
    """Runs the command as two workers do; returns the first code that is not 0."""
    import signal
    import subprocess

    command = next(word for word in words if word.startswith("--command="))[10:]
    workers = [subprocess.Popen(["bash", "-c", command], env=os.environ | {
        "SLURM_JOB_ID": told["job"], "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n), "SLURM_STEP_NUM_NODES": "1",
        "HOME": f"{here}/worker{n}"})
        for n in (0, 1)]
    rows = told["rows"]
    if next_of(here, told, "preempt", False):
        while not (os.path.exists(rows) and os.path.getsize(rows) > 400):
            if any(worker.poll() is not None for worker in workers):
                break
            time.sleep(0.02)
        workers[1].send_signal(signal.SIGTERM)
    codes = [worker.wait() for worker in workers]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(os.environ["STAND_IN"], sys.argv[1:]))
