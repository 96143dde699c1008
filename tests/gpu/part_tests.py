"""`pytest -m gpu`, in a rehearsal with the CPU in the GPU's place."""

import os
import subprocess
import sys
from xml.etree import ElementTree

from measuring import Options, run_part
from places import ROOT


def measure(options: Options) -> dict:
    """How many tests passed, and the names and messages of those that did not."""
    report = options.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", f"--junitxml={report}", "tests/gpu"]
    environment = os.environ | ({"OBERT_GPU_REHEARSAL": "1"} if options.rehearse else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    if done.returncode not in (0, 1):
        sys.exit(f"pytest ended with status {done.returncode}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    broken = {
        case.get("name"): found.get("message", "")[:300]
        for case in cases
        for kind in ("failure", "error")
        if (found := case.find(kind)) is not None
    }
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    passed = len(cases) - len(broken) - len(skipped)
    return {"passed": passed, "failed": len(broken), "skipped": len(skipped), "failures": broken}


if __name__ == "__main__":
    run_part(measure, __doc__)
