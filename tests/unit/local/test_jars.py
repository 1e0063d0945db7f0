"""Kafka's jars: listed with checksums, fetched once, never used unchecked."""

import hashlib
from pathlib import Path

import pytest
from jgo.maven import MavenContext

from muster_local.jars import KAFKA_VERSION, ChecksumMismatch, Jar, fetch_one, kafka_jars, listed_jars


def test_every_jar_is_listed_once_with_a_sha256() -> None:
    jars = listed_jars()
    assert len({jar.file_name for jar in jars}) == len(jars) > 40
    assert all(len(jar.sha256) == 64 and int(jar.sha256, 16) for jar in jars)
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in {jar.file_name for jar in jars}


def test_a_cached_jar_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "muster" / f"kafka-{KAFKA_VERSION}"
    folder.mkdir(parents=True)
    for jar in listed_jars():
        (folder / jar.file_name).touch()
    assert kafka_jars() == [folder / jar.file_name for jar in listed_jars()]
    assert all(path.stat().st_size == 0 for path in kafka_jars())
    assert not (folder / ".lock").exists()  # the cache of an image is read-only


@pytest.mark.parametrize(("content", "accepted"), [(b"the jar", True), (b"another jar", False)])
def test_a_jar_with_another_checksum_is_refused(tmp_path: Path, content: bytes, accepted: bool) -> None:
    jar = Jar("org.example", "thing", "1.0", sha256=hashlib.sha256(b"the jar").hexdigest())
    local = tmp_path / "m2" / "org" / "example" / "thing" / "1.0" / jar.file_name
    local.parent.mkdir(parents=True)
    local.write_bytes(content)
    maven = MavenContext(repo_cache=tmp_path / "m2", local_repos=[], offline=True)
    cache = tmp_path / "cache"
    cache.mkdir()
    if accepted:
        fetch_one(maven, jar, cache)
        assert (cache / jar.file_name).read_bytes() == content
    else:
        with pytest.raises(ChecksumMismatch, match=r"thing-1\.0\.jar"):
            fetch_one(maven, jar, cache)
        assert not (cache / jar.file_name).exists()
