"""``bucketd agents`` as an author uses it: real processes, real pip."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compose.cli.commands import command_group
from tests.waiting import is_running, wait_until

ROOT = Path(__file__).parents[3]


def bucketd(*words: str, cwd: Path, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from compose.cli import main; main()", *words]
    own = {name: value for name, value in os.environ.items() if not name.startswith("BUCKET_")}
    return subprocess.run(
        command, cwd=cwd, input=given, capture_output=True, text=True, check=False, timeout=60, env={**own, **environ}
    )


def agents(*words: str, cwd: Path, given: str = "", **environ: str) -> tuple[int, str]:
    done = bucketd("agents", *words, cwd=cwd, given=given, **environ)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    """The folder of a new agent, in ./my_agents of ``tmp_path``."""
    code, output = agents("new", "greeter", cwd=tmp_path)
    assert code == 0, output
    return tmp_path / "my_agents" / "greeter"


def change_spec(folder: Path, **fields: Any) -> None:
    file = folder / "agent_spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_new_agent_passes_its_check_and_its_own_test(greeter: Path, tmp_path: Path) -> None:
    code, output = agents("check", cwd=tmp_path)
    assert (code, f"greeter          1.0.0 (examples) from {greeter}" in output) == (0, True), output
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(greeter)]
    tested = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("greeter", "exists already"),
        ("Greeter", "the pattern [a-z][a-z0-9_-]{0,62}"),
        ("simulate", "is taken by"),
        ("basket_manager", "cannot be called"),
    ],
)
@pytest.mark.usefixtures("greeter")
def test_a_new_agent_is_refused_in_words(name: str, words: str, tmp_path: Path) -> None:
    code, output = agents("new", name, cwd=tmp_path)
    assert (code, words in output) == (1, True), output
    assert len(list((tmp_path / "my_agents").iterdir())) == 1


WRONG_AGENTS: dict[str, tuple[str | None, dict[str, Any], list[str]]] = {
    "breaks_its_schema": ("return {'greeting': 7}", {}, ["output_invalid", "/greeting"]),
    "raises": ("return given['nmae']", {}, ["agent_error: KeyError: 'nmae'", "line 2, in run"]),
    "hangs": ("while True: pass", {"timeout_s": 0.2}, ["did not end within 0.2 s", "in run"]),
    "ends_its_process": ("import os; os._exit(3)", {}, ["ended its process"]),
    "lacks_a_package": ("...\nimport not_there", {}, ["No module named 'not_there'", "bucketd agents install"]),
    "has_no_callable": ("...\ndel run", {}, ["no callable 'run'"]),
    "has_a_wrong_sample": (None, {"sample_output": {}}, ["sample_output breaks output_schema", "greeting"]),
    "has_a_misspelt_field": (None, {"tiemout_s": 3}, ["did you mean timeout_s"]),
}


def test_what_is_wrong_is_told_in_words(greeter: Path, tmp_path: Path) -> None:
    for name, (body, spec, _) in WRONG_AGENTS.items():
        folder = shutil.copytree(greeter, greeter.parent / name)
        change_spec(folder, name=name, **spec)
        if body is not None:
            (folder / "agent.py").write_text(f"def run(given, ctx):\n    {body}\n")
    code, output = agents("check", cwd=tmp_path)
    assert (code, output.count("✗")) == (1, len(WRONG_AGENTS)), output
    reports = {report.split()[0]: report for report in output.split("✗ ")[1:]}
    for name, (_, _, words) in WRONG_AGENTS.items():
        assert not [word for word in words if word not in reports[name]], reports[name]
        assert reports[name].count("Traceback") == (name in {"raises", "hangs"})


def test_a_difference_from_the_sample_is_a_note_and_no_run_leaves_it_out(greeter: Path, tmp_path: Path) -> None:
    change_spec(greeter, sample_output={"greeting": "Good morning."})
    code, output = agents("check", cwd=tmp_path)
    assert (code, "/greeting: 'Hello, Ada.' instead of 'Good morning.'" in output) == (0, True), output
    change_spec(greeter, settings=["GREETER_KEY"])
    code, output = agents("check", "--no-run", cwd=tmp_path)
    assert (code, "Good morning" in output, "GREETER_KEY is not set" in output) == (0, False, True), output
    code, output = agents("check", cwd=tmp_path)
    assert (code, "Good morning" in output, "so its sample was not run" in output) == (0, False, True), output


def test_a_checked_agent_leaves_no_process_behind(greeter: Path, tmp_path: Path) -> None:
    (greeter / "agent.py").write_text(
        "import subprocess, threading, time\n"
        "def run(given, ctx):\n"
        "    print('to stdout')\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        f"    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "    return {'greeting': 'Hello, Ada.'}\n"
    )
    code, output = agents("check", cwd=tmp_path)
    assert code == 0, output
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_bucketd_is_the_end_of_the_agent(greeter: Path, tmp_path: Path, number: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    (greeter / "agent.py").write_text(
        "import os, pathlib, time\n"
        "def run(given, ctx):\n"
        f"    pathlib.Path({str(pid_file)!r}).write_text(f'{{os.getpid()}}\\n')\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", "from compose.cli import main; main()", "agents", "run", "greeter"]
    given = ["--input", '{"name": "x"}']
    with subprocess.Popen([*command, *given], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), 20)
        process.send_signal(number)
        _, output = process.communicate(timeout=10)
    wait_until(lambda: not is_running(int(pid_file.read_text())))
    assert "Traceback" not in output


def test_an_agent_runs_with_its_settings_and_goes_on_at_its_checkpoint(greeter: Path, tmp_path: Path) -> None:
    change_spec(greeter, settings=["GREETER_KEY"], output_schema={"type": "object"}, sample_output={})
    (greeter / "agent.py").write_text(
        "def run(given, ctx):\n"
        "    print('chatter')\n"
        "    state = ctx.restore() or {'runs': 0}\n"
        "    ctx.checkpoint({'runs': state['runs'] + 1})\n"
        "    ctx.log('working', page=1)\n"
        "    ctx.progress(0.5, 'half')\n"
        "    return {'key': ctx.settings['GREETER_KEY'], 'runs': state['runs']}\n"
    )
    words = ("agents", "run", "greeter", "--input", "-", "--state", "state.json")
    assert bucketd(*words, cwd=tmp_path, given='{"name": "x"}').returncode == 7
    first = bucketd(*words, "--setting", "GREETER_KEY=s3", cwd=tmp_path, given='{"name": "x"}')
    assert (first.returncode, json.loads(first.stdout)) == (0, {"key": "s3", "runs": 0}), first.stderr
    assert re.search(r"chatter\ninfo +working page=1\n 50 % half", first.stderr)
    second = bucketd(*words, cwd=tmp_path, given='{"name": "x"}', GREETER_KEY="env")
    assert json.loads(second.stdout) == {"key": "env", "runs": 1}


@pytest.mark.parametrize(
    ("given", "source", "code", "words"),
    [
        ('{"name": 7}', "", 3, "input_invalid"),
        ('{"name": "x"}', "return {'greeting': float('nan')}", 4, "output_not_serialisable"),
        ('{"name": "x"}', "return {'error': 'no'}", 1, "agent_error"),
        ('{"name": "x"}', "raise ConnectionError('gone')", 5, "raise ConnectionError('gone')"),
        ('{"name": "x"}', "while True: pass", 6, "while True: pass"),
        ('{"name": "x"}', "import os; os.kill(os.getpid(), 9)", 8, "ended its process"),
        ("[1]", "", 2, "cannot be read"),
        ('{"name"', "", 2, "is not JSON"),
    ],
)
def test_the_exit_code_of_a_run_tells_the_kind_of_failure(
    greeter: Path, given: str, source: str, code: int, words: str
) -> None:
    (greeter / "agent.py").write_text(f"def run(given, ctx):\n    {source or 'return {}'}\n")
    done = CliRunner().invoke(command_group, ["agents", "run", str(greeter), "--input", given, "--timeout", "0.5"])
    assert (done.exit_code, done.stdout, words in done.stderr) == (code, "", True), done.stderr


def test_packages_are_installed_once_and_none_of_bucket_is_changed(greeter: Path, tmp_path: Path) -> None:
    """In a virtual environment of its own, with packages that need no index."""
    for name, version in (("bucket_test_fits", "1.0"), ("click", "1.0")):
        write_wheel(tmp_path, name, version)
    virtual = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(virtual)], check=True, timeout=60)
    (site,) = virtual.glob("lib/python*/site-packages")
    (own_site,) = (path for path in map(Path, sys.path) if path.name == "site-packages")
    (site / "bucket.pth").write_text(f"{ROOT}\n{own_site}\n")

    def install(requirement: str) -> tuple[int, str]:
        (greeter / "requirements.txt").write_text(f"{requirement}\n")
        command = [str(virtual / "bin" / "python"), "-c", "from compose.cli import main; main()", "agents", "install"]
        options = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PATH": os.environ["PATH"]}
        done = subprocess.run(command, cwd=tmp_path, env=options, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, output = install("bucket_test_fits==1.0")
    assert (code, "bucket-test-fits 1.0" in output) == (0, True), output
    code, output = install("bucket_test_fits==1.0")
    assert (code, "installed already" in output) == (0, True), output
    assert (site / "bucket_test_fits.py").is_file()
    code, output = install("click<8")
    assert (code, "does not go with the packages of Bucket" in output, "Bucket has click==" in output) == (
        1,
        True,
        True,
    )
    assert not (site / "click.py").exists()


def write_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_an_import_that_ends_its_process_is_told_as_that(greeter: Path, tmp_path: Path) -> None:
    (greeter / "agent.py").write_text("import os\n\nos._exit(0)\n\n\ndef run(given, ctx):\n    return {}\n")
    code, output = agents("check", "--no-run", cwd=tmp_path)
    assert code == 1
    assert "the import of agent.py ended its process" in output
