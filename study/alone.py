"""Run a Python module while this process holds a lock; the lock ends with the process, however that ends.

    python -m study.alone build/quick.lock "Another make is at it." snakemake --cores all ...

A process that finds the lock taken ends at once with the sentence, and says which file the lock is. Snakemake's own
lock stays behind after a kill -9, and the command `flock` is not on every system.
"""

import runpy
import sys

from filelock import FileLock, Timeout


def main():
    path, taken, module, *arguments = sys.argv[1:]
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        sys.exit(f"{taken} Its lock is {path}.")
    except OSError as error:
        sys.exit(f"{path} cannot be written ({error.strerror}): copy the repository to a folder of your own.")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
