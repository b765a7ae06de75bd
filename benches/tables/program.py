"""How the scripts beside this call moonflow."""

import subprocess
import sys


def run(*command, **options):
    """Standard output and error of `command`; ends with its error message where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout, done.stderr
