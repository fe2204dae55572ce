"""Running a program on two processes that talk over gloo."""

import subprocess
import sys


def run_on_two_ranks(program, folder):
    script = folder / "two_ranks.py"
    script.write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
