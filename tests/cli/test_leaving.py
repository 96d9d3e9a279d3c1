"""How a command's process ends: at once, with its code, and not before what is being written is written."""

import subprocess
import sys

IDLE_POOL = "pool = ThreadPoolExecutor(2); pool.submit(int).result()"
WRITING = "threading.Thread(target=lambda: (time.sleep(0.5), print('written'))).start()"


def ended(before: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import threading, time; from concurrent.futures import ThreadPoolExecutor; "
        f"from convsmith.cli.commands import leave\n{before}\nprint('said'); leave(3)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)


def test_idle_threads_of_a_pool_that_nobody_closed_do_not_keep_a_command_alive():
    done = ended(IDLE_POOL)
    assert (done.returncode, done.stdout) == (3, "said\n")


def test_a_thread_that_still_writes_is_waited_for():
    done = ended(WRITING)
    assert (done.returncode, done.stdout) == (3, "said\nwritten\n")
